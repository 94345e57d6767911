"""Rooms: the texts of many documents, which stay in a worker's memory and on its GPU for the next playbook over them.

They are client text, so they belong to one tenant, have a limit, and are dropped when anything is erased.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from workers.analysis.collection import Collection
from workers.engines.base import Tick

_WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a room's texts, in order. ``bytes`` is their size, ``notes`` what their readers noted, by text."""

    collection: Collection
    bytes: int
    notes: Sequence[Sequence[str]]


class Room:
    """One list of texts, in the hands of one thread at a time."""

    def __init__(self, fit: Callable[[Room, int], bool]) -> None:
        self.lock = threading.Lock()
        self.bytes = 0
        """Of the texts that are kept; where they are on a GPU, about as many are there."""
        self.kept: Sequence[Part] = ()
        """All parts, or none."""
        self._fit = fit

    def parts(self, make: Callable[[], Iterable[Part]]) -> Iterator[Part]:
        """The parts that are kept; else those that ``make`` makes, which are kept if all have been taken and fit."""
        if self.kept:
            yield from self.kept
            return
        made: list[Part] | None = []
        for part in make():
            if made is not None and self._fit(self, part.bytes):
                made.append(part)
            else:
                made = None
            yield part
        self.kept = made or ()


class Rooms:
    """The rooms that a process keeps, within ``most_bytes`` of text together; those unused for longest go first.

    Safe for threads.
    """

    def __init__(self, most_bytes: int = 0) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._rooms: OrderedDict[Hashable, Room] = OrderedDict()

    @contextmanager
    def room(self, tenant: str, texts: Hashable, tick: Tick) -> Generator[Room]:
        """The room of a tenant's ``texts``, which stand for their list, for the caller alone; ticks while it waits."""
        key = tenant, texts
        with self._lock:
            room = self._rooms.setdefault(key, Room(self._fit))
            self._rooms.move_to_end(key)
        while not room.lock.acquire(timeout=_WAIT_SECONDS):
            tick()
        try:
            yield room
        finally:
            room.lock.release()
            with self._lock:
                if not room.kept and self._rooms.get(key) is room:
                    del self._rooms[key]

    def forget(self) -> None:
        """Keep nothing: what is in use goes when its user is done."""
        with self._lock:
            self._rooms.clear()

    def _fit(self, room: Room, more: int) -> bool:
        """Whether a room that grows by so many bytes can stay, for which others leave."""
        with self._lock:
            room.bytes = room.bytes + more if room.bytes + more <= self._most_bytes else 0
            while sum(held.bytes for held in self._rooms.values()) > self._most_bytes:
                self._rooms.popitem(last=False)
            return room.bytes > 0
