"""Decides how many workers of each kind there should be: pure, from what waits and runs to a count and its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.jobs import Device, Lane, Priority


class Kind(StrEnum):
    """Kinds of workers whose number follows the load."""

    GPU = "gpu"
    CPU = "cpu"
    DOCUMENTS = "documents"
    DELIVERY = "delivery"

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """What a worker of the kind serves."""
        if self is Kind.DOCUMENTS:
            return (Lane.EXTRACT,)
        if self is Kind.DELIVERY:
            return (Lane.DELIVER,)
        return (Lane.GENERATE, Lane.EMBED, Lane.ANALYZE)


def kind_of(device: str, lanes: Sequence[str]) -> Kind:
    """The kind of a worker by what it serves."""
    if set(lanes) == set(Kind.DELIVERY.lanes):
        return Kind.DELIVERY
    if set(lanes) <= {*Kind.DOCUMENTS.lanes, *Kind.DELIVERY.lanes}:
        return Kind.DOCUMENTS
    return Kind.GPU if device == Device.GPU else Kind.CPU


@dataclass(frozen=True, slots=True)
class Bounds:
    """The fewest and the most workers of a kind, 1 ≤ ``min`` ≤ ``max``."""

    min: int
    max: int

    def clamp(self, count: int) -> int:
        """``count`` within the bounds."""
        return min(max(count, self.min), self.max)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Jobs that wait at one priority: their work in seconds of a slot, and how long the oldest has waited."""

    jobs: int
    work: float
    oldest: float


@dataclass(frozen=True, slots=True)
class KindSnapshot:
    """One kind at ``now``; all times are seconds on the server's clock.

    ``slots`` and ``busy`` are sums over the ``live`` workers, ``seats`` the slots of one. Of the decision before are
    ``desired``, ``changed`` (when that last changed, 0 for never) and ``spare_since`` (since when fewer would do, 0 for
    not now). ``pause`` is how long fewer must do before some end.
    """

    kind: Kind
    live: int
    slots: int
    busy: int
    seats: int
    waiting: Mapping[Priority, Waiting]
    bounds: Bounds
    pause: float
    desired: int
    changed: float
    spare_since: float
    now: float


@dataclass(frozen=True, slots=True)
class KindPlan:
    """How many workers of a kind there should be, why, and since when; ``spare_since`` is for the next decision."""

    kind: Kind
    desired: int
    reason: str
    changed: float
    spare_since: float


# Seconds that work of a priority and all above it may wait. More workers finish the same work sooner for the same
# worker-hours, so bulk is not made to wait for its patience.
TARGET_SECONDS: Final = {
    Priority.CRITICAL: 1.0,
    Priority.HIGH: 2.0,
    Priority.NORMAL: 4.0,
    Priority.LOW: 30.0,
    Priority.BULK: 120.0,
}
# A person waits for these, so the slots that are busy when they wait count as load that stays.
URGENT: Final = (Priority.CRITICAL, Priority.HIGH, Priority.NORMAL)
# Between two steps up: time for the workers of the first to start.
GROW_SECONDS: Final = 4.0
# The usual pause; a model is dear to load.
SHRINK_SECONDS: Final = {Kind.GPU: 600.0, Kind.CPU: 300.0, Kind.DOCUMENTS: 180.0, Kind.DELIVERY: 180.0}
# Fewer do only if their slots would stay below this share.
FILLED: Final = 0.5
# Less than this share of a worker is no reason for another; with a tenth, noise made many more changes.
TOLERANCE: Final = 0.5


def decide(snapshot: Sequence[KindSnapshot]) -> list[KindPlan]:
    """The count for each kind.

    Grows to at most the double once in ``GROW_SECONDS``; shrinks by at most a quarter once in its ``pause``, and only
    when fewer would have done all that time. The bounds hold always, and at once.
    """
    return [_decide(kind) for kind in snapshot]


def growth_limit(count: int) -> int:
    """The most workers that one step may lead to from ``count``."""
    return count + max(1, count)


def shrink_limit(count: int) -> int:
    """The fewest workers that one step may lead to from ``count``."""
    return count - max(1, count // 4)


def _decide(kind: KindSnapshot) -> KindPlan:
    bounds, now = kind.bounds, kind.now
    # A clock that was set back starts the waits again.
    changed, spare_since = min(kind.changed, now), min(kind.spare_since, now)
    count = bounds.clamp(kind.desired)
    if count != kind.desired:
        return KindPlan(kind.kind, count, f"The bounds are {bounds.min} to {bounds.max}.", now, 0.0)
    if not kind.live:
        return KindPlan(kind.kind, count, "No worker is alive, so nothing tells what one can do.", changed, 0.0)
    wanted, reason = _wanted(kind)
    if wanted > count:
        if count == bounds.max:
            return KindPlan(kind.kind, count, f"{reason}; {bounds.max} is the most allowed.", changed, 0.0)
        if now - changed < GROW_SECONDS:
            return KindPlan(kind.kind, count, f"{reason}; the last change is still taking effect.", changed, 0.0)
        grown = min(wanted, growth_limit(count), bounds.max)
        return KindPlan(kind.kind, grown, f"{reason}.", now, 0.0)
    enough = max(wanted, math.ceil(kind.busy / (kind.seats * FILLED)), bounds.min)
    if enough >= count:
        what = f"{kind.busy} of {kind.slots} slots are busy" if kind.busy else "Nothing runs"
        end = "." if kind.busy or count > bounds.min else f"; {bounds.min} is the least allowed."
        return KindPlan(kind.kind, count, what + end, changed, 0.0)
    spare_since = spare_since or now
    if now - max(spare_since, changed) < kind.pause:
        text = f"{enough} would do; when that has held for {kind.pause:.0f} s, fewer run."
        return KindPlan(kind.kind, count, text, changed, spare_since)
    shrunk = max(enough, shrink_limit(count))
    return KindPlan(kind.kind, shrunk, f"{enough} would have done for {kind.pause:.0f} s.", now, spare_since)


def _wanted(kind: KindSnapshot) -> tuple[int, str]:
    """How many workers keep every priority within its target, and the sentence that says so."""
    wanted, reason = 0, ""
    work, jobs = 0.0, 0
    full = kind.busy >= kind.slots
    for priority in Priority:
        here = kind.waiting.get(priority)
        if here is None or not here.jobs:
            continue
        work, jobs = work + here.work, jobs + here.jobs
        target = TARGET_SECONDS[priority]
        load = work / target + (kind.busy if priority in URGENT else 0)
        count = max(1, math.ceil(load / kind.seats - TOLERANCE))
        why = f"{jobs} jobs of {priority} or more urgent wait, {work:.0f} s of work in all"
        # What was measured may be wrong; the age is not. While slots are free, more of them would not help.
        if here.oldest > target and full and kind.live >= kind.desired and kind.desired + 1 > count:
            count, why = kind.desired + 1, f"a {priority} job has waited for {here.oldest:.0f} s"
        if count > wanted:
            wanted, reason = count, why[0].upper() + why[1:]
    return wanted, reason
