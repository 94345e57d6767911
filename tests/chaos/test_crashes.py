"""Whatever dies, every accepted job has exactly one accepted result and one terminal event."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from gateway.stack.children import Child
from gateway.stack.valkey import EmbeddedValkey
from services.blobs import Blobs
from services.documents import Documents
from services.errors import Unavailable
from services.jobs import JobType, Submission
from services.lifecycle import Lifecycle
from services.redis_client import server_time
from tests.chaos.installation import (
    ENDS,
    LEASE,
    ended_once,
    environment,
    real_worker,
    running,
    state,
    submit,
    worker,
    worker_command,
)
from tests.conftest import job_index, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and SIGSTOP")


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


@pytest.mark.parametrize("queue", [LEASE, pytest.param(30.0, marks=pytest.mark.slow)], indirect=True)
def test_a_worker_that_is_stopped_and_comes_back_cannot_deliver(queue: Lifecycle) -> None:
    with worker(queue, "sleeper", 4) as sleeper:
        jobs = [submit(queue, seconds=1) for _ in range(4)]
        wait_until(lambda: running(queue) == 4, 30, "four running jobs")
        sleeper.send_signal(signal.SIGSTOP)
        # It sleeps until its leases have run out and another worker has done its jobs.
        with worker(queue, "awake", 4):
            records = ended_once(queue, jobs)
            sleeper.send_signal(signal.SIGCONT)
            wait_until(lambda: queue.counters().get("stale_results", 0) == 4, 30, "the late results' refusal")
    assert {record.result for record in records} == {"res_2"}
    assert [queue.get("acme", job).result for job in jobs] == ["res_2"] * 4


def test_a_worker_that_comes_back_while_another_does_its_jobs_takes_none_from_it(queue: Lifecycle) -> None:
    with worker(queue, "sleeper", 4) as sleeper:
        jobs = [submit(queue, seconds=3) for _ in range(4)]
        wait_until(lambda: running(queue) == 4, 30, "four running jobs")
        sleeper.send_signal(signal.SIGSTOP)
        with worker(queue, "awake", 4):
            wait_until(lambda: {queue.get("acme", job).attempt for job in jobs} == {2}, 30, "the second attempts")
            sleeper.send_signal(signal.SIGCONT)
            wait_until(lambda: queue.counters().get("stale_results", 0) == 4, 30, "the first attempts' refusal")
            records = ended_once(queue, jobs)
    assert {(record.state.value, record.attempt, record.result) for record in records} == {("succeeded", 2, "res_2")}


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
    assert [job.id for job in job_index(queue).dead_letters("acme").rows] == [poison]


@pytest.mark.slow
def test_a_job_that_kills_its_worker_takes_no_other_along(queue: Lifecycle, tmp_path: Path) -> None:
    """All that runs beside it is lost with it; the process is started again until the one is a dead letter."""
    child = Child("crowded", worker_command("crowded"), environment(queue.settings), tmp_path / "logs")
    jobs = [*(submit(queue, seconds=2) for _ in range(7)), submit(queue, die=True)]
    deaths: list[int] = []

    def over() -> bool:
        deaths.extend(filter(None, [child.died()]))
        return all(state(queue, job) in ENDS for job in jobs)

    child.start()
    try:
        wait_until(over, 120, "the end of all jobs")
        records = ended_once(queue, jobs)
    finally:
        child.ask_to_stop()
        child.wait(20)
    assert records[7].problem and (records[7].problem["code"], len(deaths)) == ("worker_lost", 3)
    assert {record.state.value for record in records[:7]} == {"succeeded"}
    assert max(record.attempt for record in records) == 3


@pytest.mark.slow
def test_a_job_that_hangs_loses_its_lease_and_then_fails(queue: Lifecycle) -> None:
    hung = submit(queue, hang=True)
    with worker(queue, "patient", 8):
        good = [submit(queue) for _ in range(5)]
        records = ended_once(queue, [hung, *good], 60)
    assert records[0].problem and records[0].problem["code"] == "worker_lost"
    assert {record.state.value for record in records[1:]} == {"succeeded"}


def test_a_process_whose_engine_hangs_makes_room_for_another(queue: Lifecycle, tmp_path: Path) -> None:
    child = Child("engine", worker_command("engine", 4), environment(queue.settings), tmp_path / "logs")
    child.start()
    try:
        jobs = [submit(queue, stall=True), *(submit(queue, seconds=0.5) for _ in range(8))]
        wait_until(child.died, 30, "the end of the process")
        wait_until(lambda: child.died() or child.pid, 30, "another process")
        records = ended_once(queue, jobs)
    finally:
        child.ask_to_stop()
        child.wait(20)
    assert {record.state.value for record in records} == {"succeeded"}
    assert (records[0].attempt, child.deaths) == (2, 1)
    assert "the engine has not moved" in child.log.read_text()


def test_a_document_whose_reader_is_killed_fails_and_the_worker_lives(queue: Lifecycle) -> None:
    documents = Documents(queue.client, queue.keys, Blobs(queue.settings.data_dir))

    def extraction(text: str) -> str:
        document = documents.add("acme", text.encode(), name="a.txt").id
        return queue.submit(Submission("acme", JobType.EXTRACT, {"document": document}))[0].id

    with real_worker(queue.settings, "reading", "extract", 1) as process:
        killed = extraction("The tenant shall pay rent. " * 100_000)
        (reader,) = wait_until(lambda: psutil.Process(process.pid).children(), 60, "the reader")
        reader.kill()
        (record,) = ended_once(queue, [killed])
        (other,) = ended_once(queue, [extraction("Either party may terminate on notice.")])
        assert process.poll() is None
    assert record.problem and record.problem["code"] == "reader_crashed"
    assert record.attempt == 1
    assert other.state.value == "succeeded"


@pytest.mark.slow
def test_clocks_that_are_minutes_apart_end_nothing_early(queue: Lifecycle) -> None:
    soon = server_time(queue.client) + 50
    with worker(queue, "fast", 4, clock=60):
        # The clock ahead is the caretaker's, so that what it judged by that clock would end early.
        wait_until(lambda: queue.client.get(queue.keys("caretaker")), 30, "the caretaker")
        with worker(queue, "slow", 4, clock=-60):
            jobs = [
                queue.submit(Submission("acme", JobType.ANALYZE, {"seconds": LEASE * 1.5}, expires_at=soon))[0].id
                for _ in range(12)
            ]
            records = ended_once(queue, jobs)
    assert {(record.state.value, record.attempt) for record in records} == {("succeeded", 1)}
    assert {record.worker for record in records} == {"fast", "slow"}
    assert "leases_lost" not in queue.counters()


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


@pytest.mark.slow
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
