"""Engines of one kind by model name: each is loaded once, in a thread of its own, while those who want it wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final, Generic, Protocol, TypeVar

from services.errors import Transient
from workers.engines.base import Cancelled, Tick, WorkCancelled

log = logging.getLogger("casemill.engine")

# How often a waiting thread ticks and looks whether it was cancelled.
WAIT_SECONDS: Final = 1.0
# Two test loads and a slow disk fit into this; a load that takes longer hangs.
LOAD_SECONDS: Final = 900.0
# How long closing waits for what is still being computed or loaded.
CLOSE_SECONDS: Final = 30.0


class _Engine(Protocol):
    @property
    def stalled_seconds(self) -> float: ...

    def close(self) -> None: ...


_E = TypeVar("_E", bound=_Engine)


def _shutting_down() -> Transient:
    return Transient("This worker is shutting down; try again.", code="engine_closed")


class _Load(Generic[_E]):
    """A load under way; ``future`` brings its engine."""

    def __init__(self) -> None:
        self.future: Future[_E] = Future()
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._started

    @property
    def overdue_seconds(self) -> float:
        """How much longer than it may the load has taken."""
        return max(0.0, self.seconds - LOAD_SECONDS)


class LoadedEngines(Generic[_E]):
    """Safe from any thread; no lock is held while a model loads, so that each load concerns its own waiters only."""

    def __init__(self, load: Callable[[str], _E]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._ready: dict[str, _E] = {}
        self._load_seconds: dict[str, float] = {}
        self._loading: dict[str, _Load[_E]] = {}
        self._closed = False

    def get(self, name: str, tick: Tick, cancelled: Cancelled) -> _E:
        """The engine of the model ``name``; whoever waits for its load ticks about once a second.

        Raises ``WorkCancelled`` where ``cancelled`` says so (the load goes on for others), ``Transient``
        (``engine_closed``, ``model_load_timeout``), and what the load raises; the next call then loads again.
        """
        with self._lock:
            if self._closed:
                raise _shutting_down()
            if name in self._ready:
                return self._ready[name]
            load = self._loading.get(name)
            if load is None:
                load = _Load[_E]()
                threading.Thread(target=self._run, args=(name, load), name=f"load {name}", daemon=True).start()
                self._loading[name] = load
        while not wait([load.future], WAIT_SECONDS).done:
            if cancelled():
                raise WorkCancelled(f"The work was cancelled while {name} loaded.")
            if load.overdue_seconds:
                raise Transient(
                    f"Loading {name} has taken longer than {LOAD_SECONDS:g} s; the disk may be slow or the GPU hang.",
                    code="model_load_timeout",
                )
            tick()
        return load.future.result()

    def drop(self, name: str, engine: object) -> bool:
        """Close ``engine`` and forget it, so that the next call loads anew; answers whether it was there."""
        with self._lock:
            there = self._ready.get(name)
            if there is not engine or there is None:
                return False
            del self._ready[name]
        there.close()
        return True

    def names(self) -> list[str]:
        """Models that are loaded now."""
        with self._lock:
            return list(self._ready)

    def load_times(self) -> list[tuple[str, _E, float]]:
        """The models that are loaded now, and how many seconds each load took, the waiting for room included."""
        with self._lock:
            return [(name, engine, self._load_seconds[name]) for name, engine in self._ready.items()]

    def stalled_seconds(self) -> float:
        """How long the slowest of the engines with work in flight, or of the overdue loads, has not moved."""
        with self._lock:
            engines, loads = list(self._ready.values()), list(self._loading.values())
        return max([0.0, *(each.stalled_seconds for each in engines), *(each.overdue_seconds for each in loads)])

    def close(self) -> None:
        """Close all engines, those included whose load is under way; one that hangs is left after half a minute."""
        with self._lock:
            self._closed = True
            engines, loads = list(self._ready.values()), list(self._loading.values())
            self._ready.clear()
        for engine in engines:
            engine.close()
        if wait([load.future for load in loads], CLOSE_SECONDS).not_done:
            log.error("a model still loads after %g s; it ends with the process", CLOSE_SECONDS)

    def _run(self, name: str, load: _Load[_E]) -> None:
        try:
            engine = self._load(name)
        except BaseException as error:
            with self._lock:
                self._loading.pop(name, None)
            load.future.set_exception(error)
            return
        with self._lock:
            self._loading.pop(name, None)
            late = self._closed
            if not late:
                self._ready[name] = engine
                self._load_seconds[name] = load.seconds
        if late:
            engine.close()
            load.future.set_exception(_shutting_down())
        else:
            load.future.set_result(engine)
