"""An office day through the decision on worker counts, beside fixed counts: `make bench NAME=autoscale`.

A simulation with a seed, in steps of half a second: a day of arrivals, workers of two slots that take eight seconds
to start, jobs of a few seconds at mixed priorities, the most urgent first. Nothing is computed; what is compared is how
long jobs wait and how many worker-hours that takes.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from services.jobs import Priority
from services.scaling import SHRINK_SECONDS, Bounds, Kind, KindPlan, KindSnapshot, Waiting, decide

SEED = 7
TICK = 0.5
# As in the running system: the caretaker's round, and how old a worker's word on its busy slots may be.
DECIDE_EVERY, ANNOUNCE_EVERY = 1.0, 3.0
START_SECONDS = 8.0
SLOTS = 2
BOUNDS = Bounds(1, 10)
KIND = Kind.DOCUMENTS
PAUSE = SHRINK_SECONDS[KIND]
DAY = 24 * 3600.0
MEAN_SECONDS = 6.0
BULK_AT, BULK_JOBS = 20 * 3600.0, 4000
# Jobs an hour from each hour of the day on: night, morning peak, lunch dip, afternoon, evening.
RATES = {0: 20, 7: 400, 8: 2000, 9: 4500, 10: 5000, 11: 3500, 12: 1200, 13: 2500, 15: 3000, 17: 1200, 18: 300, 19: 60}
MIX = {Priority.CRITICAL: 2, Priority.HIGH: 18, Priority.NORMAL: 65, Priority.LOW: 15}


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A job in claiming order: priority first, then age."""

    rank: int
    at: float
    seconds: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class Day:
    """What one way of counting workers made of the day."""

    waits: list[tuple[int, float]]
    worker_hours: float
    changes: list[tuple[float, int]]

    def wait(self, share: float, ranks: range = range(len(Priority))) -> float:
        """The wait in seconds that ``share`` of the jobs of these priorities do not exceed."""
        chosen = sorted(wait for rank, wait in self.waits if rank in ranks)
        return chosen[min(len(chosen) - 1, math.ceil(share * len(chosen)))]

    @property
    def oscillations(self) -> int:
        """Changes that go against the one before within its pause."""
        pairs = pairwise(self.changes)
        return sum(then * now < 0 and at - before < PAUSE for (before, then), (at, now) in pairs)


def main() -> int:
    """Print a table and one JSON line."""
    arrivals = office_day(random.Random(SEED))
    auto = simulate(arrivals, follow())
    mean = max(BOUNDS.min, round(auto.worker_hours / 24))
    fixed = {count: simulate(arrivals, lambda *_, n=count: n) for count in (BOUNDS.min, mean, BOUNDS.max)}
    urgent, bulk = range(3), range(4, 5)
    print(f"{len(arrivals)} jobs, {sum(job.seconds for job in arrivals) / 3600 / SLOTS:.1f} worker-hours of work")
    print(
        f"{'workers':>12} {'hours':>7} {'p50':>9} {'p95':>9} {'critical p95':>13} {'to normal p95':>14} {'bulk p95':>9}"
    )
    for name, day in [("decided", auto), *((f"fixed {count}", day) for count, day in fixed.items())]:
        figures = day.wait(0.5), day.wait(0.95), day.wait(0.95, range(1)), day.wait(0.95, urgent), day.wait(0.95, bulk)
        print(f"{name:>12} {day.worker_hours:7.1f} {'{:9.2f} {:9.2f} {:13.2f} {:14.2f} {:9.0f}'.format(*figures)}")
    print(f"{len(auto.changes)} changes, {auto.oscillations} oscillations")
    least, middle, most = fixed.values()
    print(
        json.dumps(
            {
                "wait_p50_s": round(auto.wait(0.5), 2),
                "wait_p95_s": round(auto.wait(0.95), 2),
                "critical_wait_p95_s": round(auto.wait(0.95, range(1)), 2),
                "worker_hours": round(auto.worker_hours, 1),
                "fixed_max_worker_hours": round(most.worker_hours, 1),
                "fixed_max_wait_p95_s": round(most.wait(0.95), 2),
                "fixed_min_wait_p95_s": round(least.wait(0.95), 2),
                "fixed_mean_wait_p95_s": round(middle.wait(0.95), 2),
                "changes_per_hour": round(len(auto.changes) / 24, 2),
                "oscillations": auto.oscillations,
            }
        )
    )
    return 0


def office_day(chance: random.Random) -> list[Arrival]:
    """The day's jobs by time of arrival."""
    found: list[Arrival] = []
    hours = [*RATES, 24]
    for hour, until in pairwise(hours):
        at = hour * 3600.0 + chance.expovariate(RATES[hour] / 3600)
        while at < until * 3600:
            (priority,) = chance.choices(list(MIX), list(MIX.values()))
            found.append(Arrival(priority.rank, at, seconds_of_job(chance)))
            at += chance.expovariate(RATES[hour] / 3600)
    found += [Arrival(Priority.BULK.rank, BULK_AT, seconds_of_job(chance)) for _ in range(BULK_JOBS)]
    return sorted(found, key=lambda job: job.at)


def seconds_of_job(chance: random.Random) -> float:
    """Most jobs are short, a few long."""
    return chance.lognormvariate(math.log(MEAN_SECONDS) - 0.32, 0.8)


Count = Callable[[float, int, int, list[Arrival]], int]


def follow() -> Count:
    """The count that the real decision gives, from what the real snapshot would hold."""
    plan = KindPlan(KIND, BOUNDS.min, "", 0.0, 0.0)
    due, heard, told = 0.0, 0.0, 0

    def count(now: float, live: int, busy: int, waiting: list[Arrival]) -> int:
        nonlocal plan, due, heard, told
        if now >= heard:
            heard, told = now + ANNOUNCE_EVERY, busy
        if now >= due:
            due = now + DECIDE_EVERY
            state = plan.desired, plan.changed, plan.spare_since
            depth = depths(now, waiting)
            known = min(told, live * SLOTS)
            (plan,) = decide([KindSnapshot(KIND, live, live * SLOTS, known, SLOTS, depth, BOUNDS, PAUSE, *state, now)])
        return plan.desired

    return count


def depths(now: float, waiting: list[Arrival]) -> dict[Priority, Waiting]:
    """What waits, as the real snapshot counts it: jobs × measured seconds, and the age of the oldest."""
    found: dict[Priority, Waiting] = {}
    for priority in Priority:
        ages = [now - job.at for job in waiting if job.rank == priority.rank]
        if ages:
            found[priority] = Waiting(len(ages), len(ages) * MEAN_SECONDS, max(ages))
    return found


def simulate(arrivals: list[Arrival], desired: Count) -> Day:
    """The day with as many workers as ``desired`` says; a worker that is not wanted ends when its slots are free."""
    ready: list[float] = []  # of each worker: when it has started
    running: list[list[float]] = []  # of each worker: when its jobs end
    ending: list[list[float]] = []
    waiting: list[Arrival] = []
    waits: list[tuple[int, float]] = []
    changes: list[tuple[float, int]] = []
    hours, now, next_job = 0.0, 0.0, 0
    while now < DAY or waiting:
        while next_job < len(arrivals) and arrivals[next_job].at <= now:
            heapq.heappush(waiting, arrivals[next_job])
            next_job += 1
        running = [[end for end in jobs if end > now] for jobs in running]
        ending = [left for jobs in ending if (left := [end for end in jobs if end > now])]
        live = sum(at <= now for at in ready)
        wanted = desired(now, live, sum(map(len, running)), waiting)
        if wanted != len(ready) and ready:
            changes.append((now, wanted - len(ready)))
        while len(ready) < wanted:
            ready.append(now + (START_SECONDS if now else 0.0))
            running.append([])
        while len(ready) > wanted:
            ready.pop()
            ending.append(running.pop())
        for at, jobs in zip(ready, running, strict=True):
            while at <= now and len(jobs) < SLOTS and waiting:
                job = heapq.heappop(waiting)
                waits.append((job.rank, now - job.at))
                jobs.append(now + job.seconds)
        hours += (len(ready) + len(ending)) * TICK / 3600
        now += TICK
    return Day(waits, hours, changes)


if __name__ == "__main__":
    sys.exit(main())
