"""Whatever dies, every accepted job has exactly one accepted result and one terminal event."""

from __future__ import annotations

import signal
import time

import pytest

from gateway.stack.valkey import EmbeddedValkey
from services.errors import Unavailable
from services.lifecycle import Lifecycle
from tests.chaos.installation import ended_once, running, state, submit, worker
from tests.conftest import wait_until


def test_a_worker_killed_with_sixteen_jobs_running(queue: Lifecycle) -> None:
    with worker(queue, "first") as first:
        jobs = [submit(queue, seconds=1.5) for _ in range(48)]
        wait_until(lambda: running(queue) == 16, 30, "sixteen running jobs")
        first.kill()
        first.wait()
        with worker(queue, "second"):
            records = ended_once(queue, jobs)
    assert {record.state.value for record in records} == {"succeeded"}
    assert queue.counters()["extra_executions"] == 16
    assert sorted(record.attempt for record in records) == [1] * 32 + [2] * 16


def test_a_worker_that_is_stopped_and_comes_back_cannot_deliver(queue: Lifecycle) -> None:
    with worker(queue, "sleeper", 4) as sleeper:
        jobs = [submit(queue, seconds=1) for _ in range(4)]
        wait_until(lambda: running(queue) == 4, 30, "four running jobs")
        sleeper.send_signal(signal.SIGSTOP)
        with worker(queue, "awake", 4):
            records = ended_once(queue, jobs)
            sleeper.send_signal(signal.SIGCONT)
            wait_until(lambda: queue.counters().get("stale_results", 0) == 4, 30, "the late results' refusal")
    assert {record.result for record in records} == {"res_2"}
    assert [queue.get("acme", job).result for job in jobs] == ["res_2"] * 4


def test_a_job_that_kills_its_worker_ends_as_a_dead_letter(queue: Lifecycle) -> None:
    poison = submit(queue, die=True)
    for number in range(3):
        with worker(queue, f"victim-{number}") as victim:
            victim.wait(30)
        queue.care(dead_workers=[f"victim-{number}"])
    with worker(queue, "survivor"):
        good = submit(queue)
        (record, other) = ended_once(queue, [poison, good])
    assert record.problem and record.problem["code"] == "worker_lost"
    assert other.state.value == "succeeded"
    assert [job.id for job in queue.dead_letters("acme")] == [poison]


def test_a_job_that_hangs_loses_its_lease_and_then_fails(queue: Lifecycle) -> None:
    hung = submit(queue, hang=True)
    with worker(queue, "patient", 8):
        good = [submit(queue) for _ in range(5)]
        records = ended_once(queue, [hung, *good], 60)
    assert records[0].problem and records[0].problem["code"] == "worker_lost"
    assert {record.state.value for record in records[1:]} == {"succeeded"}


@pytest.mark.parametrize("away", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_a_server_killed_under_load_loses_nothing_it_accepted(
    valkey: EmbeddedValkey, queue: Lifecycle, away: int
) -> None:
    accepted: list[str] = []
    with worker(queue, "steady", 8) as process:
        for number in range(300):
            if number == 150:
                valkey.kill()
                time.sleep(away)
                valkey.start()
            try:
                accepted.append(submit(queue, seconds=0.02))
            except Unavailable:
                time.sleep(0.05)
        records = ended_once(queue, accepted, 90)
        assert process.poll() is None, "the worker outlives the server"
    assert len(accepted) >= 290
    assert {record.state.value for record in records} == {"succeeded"}


def test_a_drained_worker_hands_back_what_it_runs(queue: Lifecycle) -> None:
    with worker(queue, "leaving") as leaving:
        jobs = [submit(queue, seconds=3) for _ in range(20)]
        wait_until(lambda: running(queue) == 16, 30, "sixteen running jobs")
        leaving.terminate()
        leaving.wait(20)
        assert running(queue) == 0
        assert {state(queue, job) for job in jobs} == {"queued"}
        with worker(queue, "next"):
            records = ended_once(queue, jobs)
    assert {record.attempt for record in records} == {1}
