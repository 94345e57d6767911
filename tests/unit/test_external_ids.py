"""What clients call jobs: read once for all who follow, anew a moment later, and for those who stay when one leaves."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gateway import external_ids
from gateway.external_ids import ExternalIds


def test_one_read_serves_all_who_follow_and_is_soon_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_ids, "KEPT_SECONDS", 0.05)
    names, reads, may_answer = {"job_1": "2031-17"}, list[str](), threading.Event()

    def read(tenant: str, jobs: list[str]) -> dict[str, str]:
        reads.append(f"{tenant}|{','.join(jobs)}")
        may_answer.wait(10)
        return {job: names.get(job, "") for job in jobs}

    async def test() -> None:
        ids = ExternalIds(read)
        asking = [asyncio.create_task(ids.of("acme", ["job_1"])) for _ in range(100)]
        await asyncio.sleep(0)
        asking.pop(0).cancel()
        may_answer.set()
        assert all(answer == {"job_1": "2031-17"} for answer in await asyncio.gather(*asking))
        assert reads == ["acme|job_1"]
        assert await ids.of("rival", ["job_1"]) == {"job_1": "2031-17"}, "another tenant's is another question"
        assert reads == ["acme|job_1", "rival|job_1"]
        names.clear()
        while (await ids.of("acme", ["job_1"]))["job_1"]:
            await asyncio.sleep(0.01)

    asyncio.run(test())


def test_those_that_nobody_has_asked_for_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_ids, "KEPT_SECONDS", 600)
    reads = list[list[str]]()

    def read(_: str, jobs: list[str]) -> dict[str, str]:
        reads.append(jobs)
        return {job: job.upper() for job in jobs}

    async def test() -> None:
        ids = ExternalIds(read)
        assert await ids.of("acme", ["a"]) == {"a": "A"}
        assert await ids.of("acme", ["a", "b", "c"]) == {"a": "A", "b": "B", "c": "C"}
        assert await ids.of("acme", []) == {}

    asyncio.run(test())
    assert reads == [["a"], ["b", "c"]]
