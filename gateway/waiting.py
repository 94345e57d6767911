"""Bounds what one tenant keeps open: streams of events, and requests that wait for a job's end.

Each has a connection to itself for as long as it lasts, and a gateway process has so many: without a bound one tenant
could take them all, and nobody else was answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import Any, Final

from fastapi import Depends, Request

from gateway.openapi.raises import raises
from services.errors import Transient


class Waiting:
    """Counts what is open, by tenant; for one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, tenant: str) -> Generator[None]:
        """One more of the tenant, until the end; raises ``Transient`` code ``waiting_full``, status 429."""
        if self._open[tenant] >= self._most:
            raise Transient(
                f"{self._most} streams and waiting requests of this tenant are open; close some, or poll instead",
                code="waiting_full",
                status=429,
            )
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]


@raises("waiting_full")
async def waits(request: Request) -> AsyncGenerator[None]:
    """The dependency of a route that keeps its request open; its caller is known, as it is a ``KeyedRoute``."""
    waiting: Waiting = request.app.state.gateway.waiting
    with waiting.one(request.state.principal.tenant):
        yield


Waits: Final[Any] = Depends(waits, scope="request")
"""Over a route: ``dependencies=[Waits]``."""
