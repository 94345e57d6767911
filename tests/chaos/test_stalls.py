"""A worker whose Celery consumes nothing any more ends itself; an outage of Redis is no reason to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.stack.valkey import EmbeddedValkey
from services.lifecycle import Lifecycle
from shaders.runtime import Runtime
from tests.chaos.installation import ended_once, submit, worker
from tests.conftest import wait_until


@pytest.fixture
def deaf(queue: Lifecycle, tmp_path: Path) -> subprocess.Popen[str]:
    """A whole worker whose Celery listens to another queue, and that has two seconds to notice."""
    env = os.environ | {
        "REDIS_URL": queue.settings.redis_url,
        "CASEMILL_DATA_DIR": str(tmp_path),
        "CASEMILL_LEASE_SECONDS": "2",
    }
    command = [sys.executable, "-m", "tests.chaos.worker", "deaf", "2", "0", "2"]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_worker_that_leaves_tickets_lying_ends(
    valkey: EmbeddedValkey, queue: Lifecycle, deaf: subprocess.Popen[str]
) -> None:
    with deaf:
        try:
            assert deaf.stdout and deaf.stdout.readline() == "ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                deaf.wait(5)  # nothing waits, so nothing is left lying
            valkey.kill()
            with pytest.raises(subprocess.TimeoutExpired):
                deaf.wait(5)  # nobody knows whether anything waits
            valkey.start()
            job = submit(queue)
            assert wait_until(lambda: deaf.poll() is not None and deaf.returncode, 30, "the end of the worker") == 70
            assert deaf.stderr and "Celery takes none" in deaf.stderr.read()
            assert queue.get("acme", job).state == "queued"
        finally:
            deaf.kill()


def test_a_worker_that_loses_its_gpu_ends_and_another_does_the_job(queue: Lifecycle, gpu: Runtime) -> None:
    """The job that saw the loss is tried again; one beside it is handed back at its next step, and nothing waits."""
    job, beside = submit(queue, lose=True), submit(queue, seconds=60)
    with worker(queue, "lost", 2) as lost:
        lost.wait(60)
        assert lost.returncode == 0
        assert {queue.get("acme", number).state.value for number in (job, beside)} <= {"scheduled", "queued"}
    queue.cancel("acme", beside)
    with worker(queue, "heir", 2):
        records = ended_once(queue, [job, beside])
    assert [record.state.value for record in records] == ["succeeded", "cancelled"]
    assert records[0].attempt == 2
    assert gpu.lost is None
