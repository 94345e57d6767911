"""Has a worker's engines drop what they keep of earlier prompts when something was erased; the pulse asks."""

from __future__ import annotations

from collections.abc import Callable

from services.erasure import ERASURES
from services.lifecycle import Lifecycle
from services.redis_client import redis_errors


class Forgetting:
    """Compares the number of erasures with the one that it saw last."""

    def __init__(self, lifecycle: Lifecycle, forget: Callable[[], None]) -> None:
        self._lifecycle = lifecycle
        self._forget = forget
        self._seen: str | None = None

    def look(self) -> None:
        """Call ``forget`` where something was erased since the last look."""
        with redis_errors():
            count = self._lifecycle.client.hget(self._lifecycle.keys("counters"), ERASURES) or "0"
        if self._seen not in (None, count):
            self._forget()
        self._seen = count
