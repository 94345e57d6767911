"""A gateway is killed while clients follow a job: they go on with the next one and have every event once."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from casemill import AsyncCasemill, Casemill, Event, RetryPolicy
from gateway.stack.valkey import free_port
from services.access import Access
from services.jobs import JobType, Submission
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.both_clients import ask
from tests.conftest import wait_until
from tests.serving import CPU, gateway_process

TOKENS = 60


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_who_follows_a_gateway_that_is_killed_misses_nothing(settings: Settings, lifecycle: Lifecycle) -> None:
    settings = settings.model_copy(update={"port": free_port()})
    key = Access(lifecycle.client, lifecycle.keys).create("test", tenant="acme")
    patient = RetryPolicy(attempts=1000, seconds=120, longest=0.5)  # a machine with much to do starts one slowly
    options: dict[str, Any] = {"url": settings.local_url, "key": key, "retry": patient}
    job, _ = lifecycle.submit(Submission("acme", JobType.GENERATE, {"prompt": "x"}))
    (held,) = lifecycle.work([], lane=job.lane, devices=CPU, worker="w1", n=1)[1]
    seen: list[list[Event]] = [[], []]

    def follow(found: list[Event]) -> None:
        with Casemill(**options) as client:
            for event in client.jobs.events(job.id):
                found.append(event)  # noqa: PERF402 (as they come)

    async def follow_awaiting(client: AsyncCasemill, found: list[Event]) -> None:
        async for event in client.jobs.events(job.id):
            found.append(event)  # noqa: PERF401

    def wait(awaiting: bool) -> str:
        return ask(lambda client: client.jobs.wait(job.id, timeout=120), awaiting=awaiting, **options).state

    with ThreadPoolExecutor(4) as pool:
        with gateway_process(settings):
            followers: list[Any] = [
                pool.submit(follow, seen[0]),
                pool.submit(ask, lambda client: follow_awaiting(client, seen[1]), awaiting=True, **options),
            ]
            waiting = [pool.submit(wait, awaiting) for awaiting in (False, True)]
            for number in range(TOKENS):
                lifecycle.append(held, "token", {"text": str(number)})
                if number == TOKENS // 3:
                    wait_until(lambda: all(len(found) > TOKENS // 3 for found in seen), 60, "followers")
        # Killed; what happens now is seen by whoever comes back.
        lifecycle.append(held, "token", {"text": "while it was away"})
        with gateway_process(settings):
            lifecycle.append(held, "token", {"text": "again"})
            lifecycle.cancel("acme", job.id)
            lifecycle.care(dead_workers=["w1"])
            for follower in followers:
                follower.result(120)
            assert [waiter.result(120) for waiter in waiting] == ["cancelled"] * 2
    raw: Any = lifecycle.client
    kept = [row[0] for row in raw.xrange(lifecycle.keys("events", tenant="acme", id=job.id))]
    assert len(kept) == TOKENS + 5
    for found in seen:
        assert [event.id for event in found] == kept
        assert found[-1].event == "cancelled"
    for name in ("clock", "tickets"):
        raw.delete("-", *raw.scan_iter(f"{settings.prefix}{name}:*"))
