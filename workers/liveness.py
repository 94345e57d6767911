"""Notices a Celery consumer that has stalled: tickets wait, slots are free, and none arrives.

Celery can lose its consumer after a reconnect while its process lives on. The pulse ends such a process, so that its
supervisor starts another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.errors import Unavailable
from services.fleet import Announcement
from services.lifecycle import Lifecycle

# Beyond Celery's longest pause between two attempts to reconnect, which is 30 s.
DEAF_SECONDS = 60.0
# Looks further apart say nothing of the time between them: the process slept or was stopped.
GAP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a worker sees at one moment of its own monotonic clock, in seconds.

    ``tickets`` wait in the queues that it consumes, ``arrived`` have come to it so far. Any free slot takes a
    ticket, whatever jobs the worker can run, so waiting tickets and free slots together are never right for long.
    """

    at: float
    tickets: int
    arrived: int
    free: int
    draining: bool


def decide(before: Look | None, deaf_since: float | None, now: Look) -> float | None:
    """Since when the consumer has left tickets lying, ``None`` if it does not."""
    if not now.tickets or now.free <= 0 or now.draining:
        return None
    if before is None or before.arrived != now.arrived or now.at - before.at > GAP_SECONDS:
        return now.at
    return now.at if deaf_since is None else deaf_since


def taking_work(workers: Sequence[Announcement], name: str, host: str) -> dict[str, Any]:
    """The live worker ``name`` of this host, JSON-ready; raises ``Unavailable`` when there is none or it is deaf.

    An announcement lives for ten seconds, so a live one was renewed by a pulse that reached Redis.
    """
    found = [worker for worker in workers if worker.host == host and worker.id.startswith(f"{name}@")]
    if not found:
        raise Unavailable(f"no worker {name!r} of this machine announces itself; read its log", code="worker_silent")
    if all(worker.stalled > DEAF_SECONDS / 2 for worker in found):
        raise Unavailable(
            f"tickets have waited for {found[0].stalled:.0f} s and the worker {name!r} takes none; "
            f"it ends itself after {DEAF_SECONDS:.0f} s, so that its supervisor starts another",
            code="worker_deaf",
        )
    return {"alive": [worker.id for worker in found], "busy": sum(worker.busy for worker in found)}


class Consumer:
    """Looks at the queues of one worker process; for one thread.

    ``slots`` answers ``(arrived, free, draining)``.
    """

    def __init__(self, lifecycle: Lifecycle, queues: Sequence[str], slots: Callable[[], tuple[int, int, bool]]) -> None:
        self._lifecycle = lifecycle
        self._queues = queues
        self._slots = slots
        self._before: Look | None = None
        self._since: float | None = None

    @property
    def deaf(self) -> float:
        """For how many seconds tickets have been left lying, at the last look."""
        return 0.0 if self._since is None or self._before is None else self._before.at - self._since

    def look(self) -> float:
        """Look once more; answers :attr:`deaf`. Raises ``Unavailable`` when Redis is away, which ends the count."""
        arrived, free, draining = self._slots()
        try:
            tickets = sum(self._lifecycle.tickets(self._queues).values())
        except Unavailable:
            self._before = self._since = None
            raise
        now = Look(time.monotonic(), tickets, arrived, free, draining)
        self._since = decide(self._before, self._since, now)
        self._before = now
        return self.deaf
