"""A worker that the network cuts off cannot deliver what others did in its place, and works again when it is back."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.chaos.installation import LEASE, ended_once, running, submit, worker
from tests.chaos.network import Cable, network
from tests.conftest import wait_until


@contextmanager
def installation(folder: Path) -> Generator[tuple[Lifecycle, Cable, Cable]]:
    """A queue on a server in a network of its own, and cables for two workers."""
    with network(folder, 2) as (url, (first, second)):
        values = {"REDIS_URL": url, "lease_seconds": LEASE, "data_dir": folder, "engine": "fake"}
        queue = Lifecycle(Settings.model_validate(values))
        yield queue, first, second
        queue.client.close()


def works_again(queue: Lifecycle, name: str) -> None:
    """The only worker that is left takes what comes."""
    records = ended_once(queue, [submit(queue) for _ in range(8)])
    assert {(record.state.value, record.worker) for record in records} == {("succeeded", name)}


def stale(queue: Lifecycle) -> int:
    return queue.counters().get("stale_results", 0)


@pytest.mark.slow
def test_a_worker_cut_off_and_connected_again_cannot_deliver(tmp_path: Path) -> None:
    with installation(tmp_path) as (queue, near, far), worker(queue, "lost", 4, within=far.within, url=far.url):
        jobs = [submit(queue, seconds=1.5) for _ in range(4)]
        wait_until(lambda: running(queue) == 4, 30, "four running jobs")
        far.cut()
        with worker(queue, "there", 4, within=near.within, url=near.url):
            records = ended_once(queue, jobs)
            assert {(record.state.value, record.worker) for record in records} == {("succeeded", "there")}
            far.mend()
            wait_until(lambda: stale(queue) == 4, 60, "the late results' refusal")
        assert queue.counters()["extra_executions"] == 4
        assert [queue.get("acme", job).result for job in jobs] == ["res_2"] * 4
        works_again(queue, "lost")


@pytest.mark.slow
def test_a_worker_that_hears_no_answer_delivers_once(tmp_path: Path) -> None:
    with installation(tmp_path) as (queue, near, far), worker(queue, "deaf", 4, within=far.within, url=far.url):
        jobs = [submit(queue, seconds=1.5) for _ in range(12)]
        wait_until(lambda: running(queue) == 4, 30, "four running jobs")
        far.mute()
        # Its first ends may arrive and count, and claim more that it never learns of: those run elsewhere.
        with worker(queue, "there", 4, within=near.within, url=near.url):
            records = ended_once(queue, jobs)
            far.unmute()
        # Its slots are free once the ends that they repeat are answered, those that had arrived and those refused.
        works_again(queue, "deaf")
        assert {record.state.value for record in records} == {"succeeded"}
        assert [queue.get("acme", job) for job in jobs] == records
        assert queue.counters()["extra_executions"] == sum(record.attempt - 1 for record in records) > 0
