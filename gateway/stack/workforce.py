"""The worker processes of one machine: starts and drains them so that each kind has the number that was decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gateway.stack.children import Child
from gateway.stack.plan import Roster, WorkerRole
from services.capacity import Capacity, Limit
from services.errors import Unavailable

FOLLOW_SECONDS = 2.0
# Longer than any document may take; what still runs then goes back to the backlog.
DRAIN_SECONDS = 120.0


class Workforce:
    """Keeps the first *n* roles of each roster running, *n* being the decision in Redis."""

    def __init__(
        self,
        rosters: Sequence[Roster],
        capacity: Capacity,
        launch: Callable[[WorkerRole], Child],
        say: Callable[[str], None],
    ) -> None:
        self._rosters = rosters
        self._capacity = capacity
        self._launch = launch
        self._say = say
        self._limits = {roster.kind: Limit(len(roster.roles), roster.bounds) for roster in rosters}
        self._children: dict[str, Child] = {}
        self._followed = 0.0

    @property
    def children(self) -> list[Child]:
        """Every process that is not known to have ended."""
        return list(self._children.values())

    def start(self) -> list[WorkerRole]:
        """Start the fewest workers that the bounds allow; more follow when work waits."""
        self._capacity.declare(self._limits)
        bounds = self._capacity.bounds()
        started = [role for roster in self._rosters for role in roster.roles[: bounds[roster.kind].min]]
        for role in started:
            self._children[role.name] = self._launch(role)
        return started

    def follow(self) -> None:
        """Every two seconds, start what is missing and drain what is too much; waits while Redis is away."""
        if time.monotonic() - self._followed < FOLLOW_SECONDS:
            return
        self._followed = time.monotonic()
        try:
            self._capacity.declare(self._limits)
            desired = {scale.kind: scale.desired for scale in self._capacity.scales()}
        except Unavailable:
            return
        for roster in self._rosters:
            count = desired[roster.kind]
            # A role whose process still drains starts when that has ended: its cores are not free before.
            for role in roster.roles[:count]:
                if role.name not in self._children:
                    self._say(f"{role.name} starts: {count} {roster.kind} workers are wanted")
                    self._children[role.name] = self._launch(role)
            for role in roster.roles[count:]:
                child = self._children.get(role.name)
                if child and not child.draining:
                    self._say(f"{role.name} drains: {count} {roster.kind} workers are wanted")
                    child.drain(DRAIN_SECONDS)

    def forget(self, child: Child) -> None:
        """A process that was drained has ended."""
        del self._children[child.name]
