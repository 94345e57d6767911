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

    def read(tenant: str, job: str) -> str:
        reads.append(f"{tenant}|{job}")
        may_answer.wait(10)
        return names.get(job, "")

    async def test() -> None:
        ids = ExternalIds(read)
        asking = [asyncio.create_task(ids.of("acme", "job_1")) for _ in range(100)]
        await asyncio.sleep(0)
        asking.pop(0).cancel()
        may_answer.set()
        assert set(await asyncio.gather(*asking)) == {"2031-17"}
        assert reads == ["acme|job_1"]
        assert await ids.of("rival", "job_1") == "2031-17", "another tenant's is another question"
        assert reads == ["acme|job_1", "rival|job_1"]
        names.clear()
        while await ids.of("acme", "job_1"):
            await asyncio.sleep(0.01)

    asyncio.run(test())
