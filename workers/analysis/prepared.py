"""What is costly to prepare for a playbook and the same for every text: plans, engines, tables; kept for the next scan.

One thread prepares a thing and those who want the same wait for it; nobody else does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np

from services.playbooks import Playbook
from shaders.alphabet import Stream
from shaders.automaton import MAX_CELLS
from shaders.factors import ScanPlan
from shaders.runtime import Runtime
from shaders.scan import GpuScanner, Hits
from shaders.tally import GpuTally
from workers.analysis.ahocorasick_engine import AhoCorasickEngine
from workers.analysis.stretches import Check, unchecked

try:
    from workers.analysis.hyperscan_engine import HyperscanEngine as CpuEngine
except ModuleNotFoundError:  # no wheel for this system
    CpuEngine = AhoCorasickEngine  # the same hits, slower


class Engine(Protocol):
    """Finds a plan's factors on the CPU; safe to share between threads."""

    name: str

    def scan(self, stream: Stream, check: Check = unchecked) -> Hits:
        """The factors in ``stream``; ``check`` is called now and then, and may raise to stop."""
        ...


_Made = TypeVar("_Made")
_KEPT = 32
_TERMS = 400_000  # of all that is kept: some 3 KB each


@dataclass
class _Place(Generic[_Made]):
    """Where one thing is made; its lock is held meanwhile."""

    terms: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: _Made | None = None


class Kept(Generic[_Made]):
    """Things by key, most recently used last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: OrderedDict[tuple[str, ...], _Place[_Made]] = OrderedDict()

    def get(self, key: tuple[str, ...], terms: int, make: Callable[[], _Made]) -> _Made:
        """What was made for ``key``, made now if need be; where that fails, the next who asks tries again."""
        with self._lock:
            place = self._places.setdefault(key, _Place(terms))
            self._places.move_to_end(key)
            while len(self._places) > _KEPT or (len(self._places) > 1 and self._terms() > _TERMS):
                self._places.popitem(last=False)
        with place.lock:
            if place.made is None:
                place.made = make()
            return place.made

    def _terms(self) -> int:
        return sum(place.terms for place in self._places.values())


@dataclass(frozen=True)
class GpuCounter:
    """Counts what symbols decide; ``rest`` finds the other factors, none if there are none."""

    tally: GpuTally
    rest: GpuScanner | None


_plans = Kept[ScanPlan]()
_engines = Kept[Engine]()
_scanners = Kept[GpuScanner]()
_counters = Kept[GpuCounter]()


def plan_of(playbook: Playbook) -> ScanPlan:
    """The plan of a playbook."""
    return _plans.get((playbook.version,), _size(playbook), partial(ScanPlan, playbook))


def cpu_engine(playbook: Playbook) -> Engine:
    """The engine of a playbook on the CPU."""
    return _engines.get((playbook.version,), _size(playbook), lambda: CpuEngine(plan_of(playbook)))


def gpu_scanner(playbook: Playbook, found: Runtime) -> GpuScanner:
    """The tables of a playbook on a GPU."""
    return _scanners.get((playbook.version, found.name), _size(playbook), lambda: GpuScanner(plan_of(playbook), found))


def gpu_counter(playbook: Playbook, found: Runtime) -> GpuCounter:
    """The tables that count for a playbook on a GPU."""
    return _counters.get((playbook.version, found.name), _size(playbook), lambda: _counter(plan_of(playbook), found))


def _counter(plan: ScanPlan, found: Runtime) -> GpuCounter:
    tally = GpuTally(plan, MAX_CELLS, found)
    rest = np.flatnonzero(~tally.counted).tolist()
    return GpuCounter(tally, GpuScanner(plan, found, rest) if rest else None)


def _size(playbook: Playbook) -> int:
    return sum(len(category.literals) + len(category.patterns) for category in playbook.categories)
