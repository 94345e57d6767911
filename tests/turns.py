"""A plain model of whose turn it is: virtual time, where each tenant's next job starts, and what a claim takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from services.jobs import Device, Priority

PATIENCE = {Priority.NORMAL: 120, Priority.LOW: 1200, Priority.BULK: 14400}
SMALL_COST = 1.0
MODEL_WINDOW = 8
MODEL_PATIENCE = 30


@dataclass(frozen=True)
class Waiting:
    """A job in a backlog of the lane. ``queued`` is when it was accepted, ``score`` its start in virtual time."""

    tenant: str
    device: Device
    priority: Priority
    model: str
    cost: float
    queued: float
    score: float
    suspect: bool

    @property
    def alone(self) -> bool:
        """Whether it shares no claim."""
        return self.suspect or self.cost > SMALL_COST


@dataclass
class Turns:
    """One lane. ``began`` is the server's time before any job came."""

    began: float
    waiting: dict[str, Waiting] = field(default_factory=dict[str, Waiting])
    virtual: dict[Priority, float] = field(default_factory=dict[Priority, float])
    ends: dict[tuple[Priority, str], float] = field(default_factory=dict[tuple[Priority, str], float])
    starts: dict[str, float] = field(default_factory=dict[str, float])
    claims: int = 0

    def enter(self, came: Mapping[str, Waiting], now: float) -> None:
        """Jobs have come: each starts where its tenant's last one ends, one that comes back where it did."""
        for member, job in sorted(came.items(), key=lambda item: item[1].score):
            self.waiting[member] = job
            if member in self.starts:
                assert job.score == self.starts[member], "who comes back keeps its place"
                continue
            ahead, time = self.ends.get((job.priority, job.tenant), 0.0), self.virtual.get(job.priority)
            if time is not None:
                assert job.score == max(ahead, time)
            else:  # nothing was claimed there yet, so it is the server's time that counts
                assert max(ahead, self.began) <= job.score <= max(ahead, now)
            self.ends[job.priority, job.tenant] = round(job.score + job.cost, 6)
            self.starts[member] = job.score

    def rest(self) -> None:
        """The caretaker has been: where nothing waits, nobody is ahead of anybody."""
        busy = {job.priority for job in self.waiting.values()}
        self.ends = {place: end for place, end in self.ends.items() if place[0] in busy}

    def claim(
        self,
        taken: Sequence[str],
        n: int,
        *,
        devices: Collection[Device],
        models: Mapping[str, bool] | None,
        suspects: bool,
        now: float,
    ) -> None:
        """A claim of up to ``n`` has taken these; fails unless it is what it should have taken, and as many."""
        first: Waiting | None = None
        for place in range(n):
            able = {
                member: job
                for member, job in self.waiting.items()
                if job.device in devices
                and (not job.model or models is None or job.model in models)
                and (suspects or not job.suspect)
            }
            best = _in_turn(able, models, now)
            old = self._overdue(able, best, now) if not first else None
            if place == len(taken):
                stops = first and any(job.priority != first.priority or job.alone for job in best.values())
                assert stops or not best, "more could have been taken"
                return
            job = self.waiting.pop(taken[place])
            assert taken[place] == old if old else taken[place] in best, "not its turn"
            assert not first or (job.priority == first.priority and not job.alone), "they share no claim"
            if not old:
                self.virtual[job.priority] = max(self.virtual.get(job.priority, 0.0), job.score)
            if job.alone:
                assert len(taken) == place + 1, "it shares no claim"
                return
            first = first or job

    def _overdue(self, able: Mapping[str, Waiting], best: Mapping[str, Waiting], now: float) -> str | None:
        """What has waited longest beyond its patience, at every eighth claim that would not take critical work."""
        if not best or any(job.priority is Priority.CRITICAL for job in best.values()):
            return None
        self.claims += 1
        over = {member: now - job.queued - PATIENCE[job.priority] for member, job in able.items()}
        oldest = max(over, key=over.__getitem__)
        return oldest if self.claims % 8 == 0 and over[oldest] > 0 else None


def _in_turn(able: Mapping[str, Waiting], models: Mapping[str, bool] | None, now: float) -> dict[str, Waiting]:
    """Those of which any may be next: the first of the most urgent, or close behind it one whose model is loaded."""
    if not able:
        return {}
    rank = min(job.priority.rank for job in able.values())
    equals = {member: job for member, job in able.items() if job.priority.rank == rank}
    loaded = {member: job for member, job in equals.items() if not job.model or models is None or models[job.model]}
    first, warm = _first(equals), _first(loaded)
    start = min((job.score for job in warm.values()), default=0.0)
    if not warm or sum(job.score < start for job in equals.values()) >= MODEL_WINDOW:
        return first
    # Of several that start at the same time either is the first.
    patient = {now - job.queued <= MODEL_PATIENCE for job in first.values()}
    return (warm if True in patient else {}) | (first if False in patient else {})


def _first(jobs: Mapping[str, Waiting]) -> dict[str, Waiting]:
    start = min((job.score for job in jobs.values()), default=0.0)
    return {member: job for member, job in jobs.items() if job.score == start}
