"""What clients call the jobs whose states they follow: read when a state is told, so that no stream keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.concurrency import run_in_threadpool

KEPT_SECONDS: Final = 1.0


class ExternalIds:
    """Reads each once for all who follow the same states; belongs to the event loop that asks."""

    def __init__(self, read: Callable[[str, str], str]) -> None:
        """``read`` answers the external id of a tenant's job, empty where it has none; it may block."""
        self._read = read
        self._asked: dict[tuple[str, str], asyncio.Task[str]] = {}

    async def of(self, tenant: str, job: str) -> str:
        """The external id of a job, as it was a second ago at most; raises ``Unavailable``."""
        asked = self._asked.get((tenant, job))
        if asked is None:
            asked = asyncio.create_task(run_in_threadpool(self._read, tenant, job))
            self._asked[tenant, job] = asked
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._asked.pop, (tenant, job), None)
        return await asyncio.shield(asked)  # who goes away takes the answer from nobody
