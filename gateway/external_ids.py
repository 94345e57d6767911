"""What clients call the jobs whose states they follow: read when states are told, so that no stream keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from starlette.concurrency import run_in_threadpool

KEPT_SECONDS: Final = 1.0
Names = dict[str, str]


class ExternalIds:
    """Reads each once for all who follow the same states; belongs to the event loop that asks."""

    def __init__(self, read: Callable[[str, list[str]], Names]) -> None:
        """``read`` answers the external ids of a tenant's jobs, empty where one has none; it may block."""
        self._read = read
        self._asked: dict[tuple[str, str], asyncio.Task[Names]] = {}

    async def of(self, tenant: str, jobs: Collection[str]) -> Names:
        """The external ids of these jobs, as they were a second ago at most, read together; raises as ``read`` does."""
        if unread := [job for job in jobs if (tenant, job) not in self._asked]:
            asked = asyncio.create_task(run_in_threadpool(self._read, tenant, unread))
            self._asked |= {(tenant, job): asked for job in unread}
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget, tenant, unread)
        found: Names = {}
        for asked in {self._asked[tenant, job] for job in jobs}:
            found |= await asyncio.shield(asked)  # who goes away takes the answer from nobody
        return {job: found[job] for job in jobs}

    def _forget(self, tenant: str, jobs: list[str]) -> None:
        for job in jobs:
            del self._asked[tenant, job]
