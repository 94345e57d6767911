"""Which engines are in memory and who uses them: makes room for another one, least recently used first, never in use.

An engine is used under a lease. A load that needs room closes idle engines; where all are in use it waits, and after a
while the one that has waited longest for its last user takes no new ones, so that nobody keeps a model out for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from services.errors import ModelError, Transient
from services.models import Kind
from workers.engines.base import Cancelled, Tick, WorkCancelled
from workers.engines.plan import ContextPlan

log = logging.getLogger("casemill.engine")

# How long a load waits for engines in use before one of them takes no new work, and before it gives up.
PATIENCE_SECONDS: Final = 30.0
BUSY_SECONDS: Final = 300.0
# A fresh engine is not closed before those who waited for it could take it.
GRACE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.2

Key = tuple[Kind, str]
# What could be planned for a model if that many bytes of the loaded ones were free; raises ``memory_exceeded``.
Choose = Callable[[int], ContextPlan]
_E = TypeVar("_E")


@dataclass(slots=True, eq=False)
class _Resident:
    """An engine, or the room that is reserved for one while it loads (``engine`` ``None``)."""

    bytes: int
    engine: object | None = None
    leases: int = 0
    leaving: bool = False  # takes no new leases
    closing: bool = False
    used: float = field(default_factory=time.monotonic)

    @property
    def idle(self) -> bool:
        return self.engine is not None and self.leases == 0 and not self.closing


class Residents:
    """Safe from any thread. ``close`` frees the engine of a key and answers whether it was there to be freed."""

    def __init__(self, close: Callable[[Key, object], bool], stopping: Callable[[], bool]) -> None:
        self._close = close
        self._stopping = stopping
        self._changed = threading.Condition()
        self._there: dict[Key, _Resident] = {}

    @property
    def loading_bytes(self) -> int:
        """Bytes promised to engines that are not yet loaded."""
        with self._changed:
            return sum(each.bytes for each in self._there.values() if each.engine is None)

    @property
    def held_bytes(self) -> int:
        """Bytes of all engines, those included that load or close."""
        with self._changed:
            return sum(each.bytes for each in self._there.values())

    def admit(self, key: Key, choose: Choose) -> ContextPlan:
        """Reserve room for the engine of ``key`` and answer how to load it; call it from the thread that loads.

        A model that shares the memory may get fewer sequences than it could have alone, never fewer layers on the GPU.
        Raises ``ModelError`` ``memory_exceeded`` where it could not be loaded even alone, and then nothing was closed
        for it; ``Transient``: ``memory_busy`` where all others stay in use, ``engine_closed``.
        """
        with self._changed:
            began = time.monotonic()
            asked: _Resident | None = None
            while key in self._there and self._there[key].closing:
                self._wait(key, began)
            self._there.pop(key, None)
            try:
                while (plan := self._fit(choose)) is None:
                    if victim := self._victim():
                        self._evict(victim, key)
                        continue
                    if time.monotonic() - began > PATIENCE_SECONDS and not any(
                        each.leaving for each in self._there.values()
                    ):
                        asked = self._longest_in_use()
                        if asked:
                            asked.leaving = True
                    self._wait(key, began)
            finally:
                if asked:
                    asked.leaving = False
            self._there[key] = _Resident(plan.total_bytes)
            return plan

    def _fit(self, choose: Choose) -> ContextPlan | None:
        """The plan to go by now; ``None`` where others must leave first."""
        alone = choose(sum(each.bytes for each in self._there.values()))
        try:
            plan = choose(0)
        except ModelError:
            return None
        if plan.gpu_layers != alone.gpu_layers:
            return None
        return plan if 2 * plan.sequences >= alone.sequences or not self._victim() else None

    def loaded(self, key: Key, engine: object) -> None:
        """The engine of ``key`` is there now."""
        with self._changed:
            resident = self._there.setdefault(key, _Resident(0))
            resident.engine, resident.used = engine, time.monotonic() + GRACE_SECONDS
            self._changed.notify_all()

    def forget(self, key: Key) -> None:
        """The load of ``key`` failed; its room is free."""
        with self._changed:
            self._there.pop(key, None)
            self._changed.notify_all()

    @contextmanager
    def lease(self, key: Key, get: Callable[[], _E], tick: Tick, cancelled: Cancelled) -> Generator[_E]:
        """Use the engine that ``get`` answers; it is not closed for another before the block ends.

        Where it is about to be closed, waits and gets it anew. Raises what ``get`` raises, and ``WorkCancelled``.
        """
        while not self._enter(key, engine := get()):
            tick()
            if cancelled():
                raise WorkCancelled(f"The work was cancelled while {key[1]} made room for another model.")
            time.sleep(_POLL_SECONDS)
        try:
            yield engine
        finally:
            self._leave(key, engine)

    def _enter(self, key: Key, engine: object) -> bool:
        with self._changed:
            resident = self._there.get(key)
            if resident is None or resident.engine is not engine or resident.leaving or resident.closing:
                return False
            resident.leases += 1
            resident.used = time.monotonic()
            return True

    def _leave(self, key: Key, engine: object) -> None:
        with self._changed:
            resident = self._there.get(key)
            if resident is not None and resident.engine is engine:
                resident.leases -= 1
                resident.used = time.monotonic()
                self._changed.notify_all()

    def _victim(self) -> Key | None:
        """The least recently used engine that is idle."""
        now = time.monotonic()
        idle = [key for key, each in self._there.items() if each.idle and each.bytes and each.used <= now]
        return min(idle, key=lambda key: self._there[key].used, default=None)

    def _longest_in_use(self) -> _Resident | None:
        """The engine in use whose last user came first."""
        used = [each for each in self._there.values() if each.leases and each.bytes]
        return min(used, key=lambda each: each.used, default=None)

    def _evict(self, key: Key, for_key: Key) -> None:
        """Close an idle engine; without the lock, as freeing may take a while. Its bytes count until it is gone."""
        resident = self._there[key]
        resident.closing = True
        log.info("closing %s to make room for %s", key[1], for_key[1])
        self._changed.release()
        try:
            gone = self._close(key, resident.engine)
        finally:
            self._changed.acquire()
        if gone:
            self._there.pop(key, None)
        else:  # its load is just about to be told to those who wait for it
            resident.closing, resident.used = False, time.monotonic() + GRACE_SECONDS
        self._changed.notify_all()

    def _wait(self, key: Key, began: float) -> None:
        if self._stopping():
            raise Transient("This worker is shutting down; try again.", code="engine_closed")
        if time.monotonic() - began > BUSY_SECONDS:
            raise Transient(
                f"There is no memory for {key[1]}: all loaded models have been in use for {BUSY_SECONDS:g} s. "
                f"Try again later, or give models more memory (CASEMILL_MEMORY_BYTES).",
                code="memory_busy",
            )
        self._changed.wait(_POLL_SECONDS)
