"""Has a worker drop what it keeps of texts, prompts and rooms, when something was erased; the pulse asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from services.erasure import ERASURES
from services.lifecycle import Lifecycle
from services.redis_client import redis_errors


class Forgetting:
    """Compares the number of erasures with the one that it saw last.

    ``seen`` is that number, and nothing is kept of what those erased; the worker announces it.
    """

    def __init__(self, lifecycle: Lifecycle, forget: Iterable[Callable[[], None]]) -> None:
        self._lifecycle = lifecycle
        self._forget = tuple(forget)
        self.seen = 0

    def look(self) -> None:
        """Have everything dropped where something was erased since the last look."""
        with redis_errors():
            count = int(self._lifecycle.client.hget(self._lifecycle.keys("counters"), ERASURES) or 0)
        if count != self.seen:
            for forget in self._forget:
                forget()
        self.seen = count
