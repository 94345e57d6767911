"""What the chaos tests share: worker processes around one queue, and the look at a queue after a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from services.jobs import Job, JobType, Submission
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.conftest import wait_until

LEASE = 2.0
ENDS = ("succeeded", "failed", "cancelled", "expired")


def environment(settings: Settings) -> dict[str, str]:
    """Our environment with the installation's settings, for its processes."""
    return os.environ | {
        "REDIS_URL": settings.redis_url,
        "CASEMILL_LEASE_SECONDS": str(settings.lease_seconds),
        "CASEMILL_DATA_DIR": str(settings.data_dir),
        "CASEMILL_ENGINE": settings.engine,
        "CASEMILL_RESULT_TTL_SECONDS": str(settings.result_ttl_seconds),
    }


@contextmanager
def process(command: Sequence[str], env: Mapping[str, str]) -> Generator[subprocess.Popen[bytes]]:
    """A process that is killed at the end if it still runs."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=env, stdout=quiet, stderr=quiet) as started:
        try:
            yield started
        finally:
            started.kill()


def worker_command(name: str, threads: int = 16, clock: float = 0.0) -> list[str]:
    """What starts a worker of chaos tasks."""
    return [sys.executable, "-m", "tests.chaos.worker", name, str(threads), str(clock)]


@contextmanager
def worker(
    queue: Lifecycle, name: str, threads: int = 16, *, clock: float = 0.0, within: Sequence[str] = (), url: str = ""
) -> Generator[subprocess.Popen[bytes]]:
    """A worker of chaos tasks (``tests.chaos.worker``).

    ``clock`` is how many seconds its own clock is ahead; ``within`` a command that starts it in another network, from
    where the server is at ``url``.
    """
    command = [*within, *worker_command(name, threads, clock)]
    env = environment(queue.settings) | ({"REDIS_URL": url} if url else {})
    with process(command, env) as started:
        yield started


@contextmanager
def real_worker(settings: Settings, name: str, lanes: str, slots: int = 2) -> Generator[subprocess.Popen[bytes]]:
    """A worker as ``casemill up`` starts it."""
    command = [sys.executable, "-m", "workers", "run", "--name", name, "--device", "cpu"]
    with process([*command, "--lanes", lanes, "--slots", str(slots)], environment(settings)) as started:
        yield started


@contextmanager
def mortal_gateway(settings: Settings, key: str) -> Generator[httpx.Client]:
    """A gateway that dies where a request says (``tests.chaos.gateway``) and starts again; answers a client of it."""
    command = [sys.executable, "-m", "tests.chaos.gateway"]
    with subprocess.Popen(command, env=environment(settings), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdin and started.stdout
        try:
            port = int(started.stdout.readline())
            headers = {"Authorization": f"Bearer {key}"}
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
                yield client
        finally:
            started.stdin.close()  # it ends with its child
            started.wait(30)


def submit(queue: Lifecycle, **asked: Any) -> str:
    """A job that does what is asked (``tests.chaos.worker``); answers its id."""
    return queue.submit(Submission("acme", JobType.ANALYZE, asked))[0].id


def state(queue: Lifecycle, job: str) -> str:
    """Where a job stands."""
    return queue.get("acme", job).state.value


def running(queue: Lifecycle) -> int:
    """Leases that are held."""
    raw: Any = queue.client
    return raw.zcard(queue.keys("leases"))


def event_names(queue: Lifecycle, job: str) -> list[str]:
    """The names of a job's events, in order."""
    raw: Any = queue.client
    return [row[1]["event"] for row in raw.xrange(queue.keys("events", tenant="acme", id=job))]


def ended_once(queue: Lifecycle, jobs: Sequence[str], seconds: float = 60) -> list[Job]:
    """The records once all have ended, each with one terminal event and nothing left behind."""
    raw: Any = queue.client
    wait_until(lambda: all(state(queue, job) in ENDS for job in jobs), seconds, "the end of all jobs")
    for job in jobs:
        names = event_names(queue, job)
        assert [name for name in names if name in ENDS] == [names[-1]], names
    assert running(queue) == 0
    assert raw.hgetall(queue.keys("waiting")) == {}
    return [queue.get("acme", job) for job in jobs]
