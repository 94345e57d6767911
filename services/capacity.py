"""Keeps the number of workers in Redis: bounds, the machine's limits and the decision, which all roles read alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from services.errors import InvalidRequest
from services.fleet import Announcement, Fleet
from services.jobs import Device, Lane, Priority
from services.lifecycle import Lifecycle
from services.redis_client import redis_errors, server_time
from services.scaling import SHRINK_SECONDS, Bounds, Kind, KindPlan, KindSnapshot, Waiting, decide

LIMIT_SECONDS = 30
# Of a job in a lane where none has ended yet.
UNMEASURED_SECONDS = 1.0
# Without a machine of our own that sets the limit, as on a cluster.
MOST = 1000


@dataclass(frozen=True, slots=True)
class Limit:
    """The most workers of a kind that a machine has room for; ``bounds`` hold until others are set."""

    most: int
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Scale:
    """A kind as it is shown: live workers, the decision and its bounds."""

    kind: Kind
    live: int
    desired: int
    min: int
    max: int
    reason: str


class Capacity:
    """Bounds and decisions of all kinds; every method raises ``Unavailable`` when Redis is away.

    A kind is decided on when somebody has set its bounds or the machine of `casemill up` has it.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._client = lifecycle.client
        self._keys = lifecycle.keys
        self._fleet = Fleet(lifecycle.client, lifecycle.keys)

    def declare(self, limits: Mapping[Kind, Limit]) -> None:
        """Say what this machine has room for; holds for half a minute."""
        with redis_errors():
            text = json.dumps({kind: asdict(limit) for kind, limit in limits.items()})
            self._client.set(self._keys("scale_limits"), text, ex=LIMIT_SECONDS)

    def bounds(self) -> dict[Kind, Bounds]:
        """The bounds that hold now, by kind, each within the machine's limit."""
        with redis_errors():
            chosen = self._client.hgetall(self._keys("scale"))
        limits = self._limits()
        found: dict[Kind, Bounds] = {}
        for kind in Kind:
            limit = limits.get(kind)
            if text := chosen.get(kind):
                wanted = Bounds(**json.loads(text))
            elif limit:
                wanted = limit.bounds
            else:
                continue
            most = limit.most if limit else MOST
            found[kind] = Bounds(max(1, min(wanted.min, wanted.max, most)), max(1, min(wanted.max, most)))
        return found

    def change_bounds(self, name: str, least: int | None, most: int | None) -> Scale:
        """Set one bound or both of a kind; raises ``InvalidRequest`` for an unknown kind or bounds that cannot be."""
        if name not in list(Kind):
            raise InvalidRequest(f"there is no kind {name!r}; use {', '.join(Kind)}", code="kind_unknown")
        kind = Kind(name)
        before = self.bounds().get(kind, Bounds(1, 1))
        new = Bounds(before.min if least is None else least, before.max if most is None else most)
        limits = self._limits()
        room = limits[kind].most if kind in limits else 0 if limits else MOST
        if not 1 <= new.min <= new.max <= room:
            room_text = f"this machine has room for {room}" if limits else f"the most is {MOST}"
            raise InvalidRequest(
                f"{new.min} to {new.max} workers of kind {kind} cannot be: 1 ≤ min ≤ max is needed, and {room_text}",
                code="bounds_invalid",
            )
        with redis_errors():
            self._client.hset(self._keys("scale"), kind, json.dumps(asdict(new)))
        return next(scale for scale in self.scales() if scale.kind is kind)

    def plans(self) -> dict[Kind, KindPlan]:
        """The decisions that hold now, by kind."""
        with redis_errors():
            texts = self._client.hgetall(self._keys("scale_plan"))
        return {Kind(kind): KindPlan(**json.loads(text) | {"kind": Kind(kind)}) for kind, text in texts.items()}

    def scales(self) -> list[Scale]:
        """Every kind that is decided on, as it is shown."""
        plans, workers = self.plans(), self._fleet.workers()
        return [
            Scale(
                kind,
                live=sum(worker.kind is kind for worker in workers),
                desired=bounds.clamp(plans[kind].desired if kind in plans else bounds.min),
                min=bounds.min,
                max=bounds.max,
                reason=plans[kind].reason if kind in plans else "Nothing was decided yet.",
            )
            for kind, bounds in self.bounds().items()
        ]

    def decide(self) -> None:
        """One decision on all kinds, kept for everybody; the caretaker's, so that there is one at a time."""
        bounds = self.bounds()
        if not bounds:
            return
        before = self.plans()
        plans = decide(self._snapshot(bounds, before))
        new = {plan.kind.value: json.dumps(asdict(plan)) for plan in plans if plan != before.get(plan.kind)}
        if new:  # every write is synced to the disk
            with redis_errors():
                self._client.hset(self._keys("scale_plan"), mapping=new)

    def _snapshot(self, bounds: Mapping[Kind, Bounds], before: Mapping[Kind, KindPlan]) -> list[KindSnapshot]:
        workers = self._fleet.workers()
        depths, seconds = self._lifecycle.depths(), self._lifecycle.service_seconds()
        now = server_time(self._client)
        found: list[KindSnapshot] = []
        for kind, kind_bounds in bounds.items():
            live = [worker for worker in workers if worker.kind is kind]
            seats = [self._seats(worker) for worker in live]
            plan = before.get(kind, KindPlan(kind, kind_bounds.min, "", 0.0, 0.0))
            found.append(
                KindSnapshot(
                    kind=kind,
                    live=len(live),
                    slots=sum(seats),
                    busy=sum(min(worker.busy, own) for worker, own in zip(live, seats, strict=True)),
                    seats=max(1, sum(seats) // len(live)) if live else 1,
                    waiting=_waiting(depths, seconds, kind, _devices(kind, bounds)),
                    bounds=kind_bounds,
                    pause=self._lifecycle.settings.scale_down_seconds or SHRINK_SECONDS[kind],
                    desired=plan.desired,
                    changed=plan.changed,
                    spare_since=plan.spare_since,
                    now=now,
                )
            )
        return found

    def _seats(self, worker: Announcement) -> int:
        """Slots of a worker that any priority may use: an engine has no more than its sequences."""
        if worker.kind in (Kind.DOCUMENTS, Kind.DELIVERY):
            return worker.slots
        return min(worker.slots, self._lifecycle.settings.sequences)

    def _limits(self) -> dict[Kind, Limit]:
        with redis_errors():
            text = self._client.get(self._keys("scale_limits"))
        raw: dict[str, Any] = json.loads(text) if text else {}
        return {Kind(kind): Limit(row["most"], Bounds(**row["bounds"])) for kind, row in raw.items()}


def _devices(kind: Kind, decided: Mapping[Kind, Bounds]) -> tuple[Device, ...]:
    """Whose jobs count for a kind: those for any device count once, for the GPU where one is decided on."""
    if kind is Kind.GPU:
        return (Device.GPU, Device.ANY)
    if kind is Kind.CPU and Kind.GPU in decided:
        return (Device.CPU,)
    return (Device.CPU, Device.ANY)


def _waiting(
    depths: Mapping[tuple[Lane, Device, Priority], tuple[int, float]],
    seconds: Mapping[str, float],
    kind: Kind,
    devices: tuple[Device, ...],
) -> dict[Priority, Waiting]:
    found: dict[Priority, Waiting] = {}
    for (lane, device, priority), (jobs, oldest) in depths.items():
        if lane in kind.lanes and device in devices:
            before = found.get(priority, Waiting(0, 0.0, 0.0))
            work = jobs * seconds.get(lane, UNMEASURED_SECONDS)
            found[priority] = Waiting(before.jobs + jobs, before.work + work, max(before.oldest, oldest))
    return found
