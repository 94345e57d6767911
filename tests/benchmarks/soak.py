"""Mixed load while workers and the server are killed: `make bench NAME=soak`, or `python -m tests.benchmarks.soak 60`.

Two tenants, five priorities, single jobs, parents with plans, bulk runs, cancellations and repeated requests, on three
workers of sleeping tasks; `kill -9` of a worker every few seconds and, twice, of the server. Half of the dead workers
are reaped as the supervisor does, the leases of the others run out. One worker is never killed, so that the growth of
its memory can be seen. Once all has ended, what clients were told is compared with what the server has
(`tests.chaos.ledger`).

`critical_p99_s` is from acceptance to first claim by the events' times, which are the server's. The seconds in which
the server was dead or loading are taken off a wait that spans them; the time that workers take to come back to it is
not.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from gateway.stack.valkey import EmbeddedValkey
from services.blobs import Blobs
from services.documents import Documents
from services.jobs import JobType, Lane, Priority, Step, Submission
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.chaos.installation import worker
from tests.chaos.ledger import Audit, Ledger, patiently
from tests.conftest import leaked_keys

SECONDS = 600.0
LEASE = 5.0
# Slots enough for the load on average, yet full under a run or after a kill.
WORKERS, THREADS = 3, 4
RATE = 15
TENANTS = ("acme", "birch")
WEIGHTS = {Priority.CRITICAL: 2, Priority.HIGH: 2, Priority.NORMAL: 3, Priority.LOW: 2, Priority.BULK: 3}
# Shares of the requests; the rest are single jobs.
PLANS, REPEATS, CANCELLATIONS = 0.2, 0.05, 0.05
RUN_WINDOW = 16
# When each tenant's run is submitted and when the server dies, as parts of the whole time.
RUNS_AT, SERVER_DIES_AT = (0.1, 0.5), (0.3, 0.7)
KILL_SECONDS = (4.0, 10.0)
SERVER_DOWN_SECONDS = 0.5
LOOK_SECONDS = 0.25
SETTLE_SECONDS, KEYS_SECONDS = 180.0, 30.0
SEED = 7


def main() -> int:
    """Print a table and one JSON line."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory() as folder:
        figures = soak(Path(folder), seconds)
    print(json.dumps(figures))
    return 0


def soak(folder: Path, seconds: float) -> dict[str, float | None]:
    """The whole run; answers its figures."""
    with ExitStack() as stack:
        server = EmbeddedValkey(folder / "valkey")
        values = {"REDIS_URL": server.start(), "lease_seconds": LEASE, "data_dir": folder, "run_window": RUN_WINDOW}
        stack.callback(server.stop)
        queue = Lifecycle(Settings.model_validate(values))
        stack.callback(queue.client.close)
        ledger = Ledger(queue)
        crew = Crew(queue, stack)
        ledger.submit(Submission(TENANTS[0], JobType.ANALYZE, {}))
        if not within(SETTLE_SECONDS, ledger.settled, crew):
            raise SystemExit("no worker starts")
        load = Load(queue, ledger, seconds)
        load.start()
        outages = trouble(server, crew, seconds)
        load.join()
        settled = within(SETTLE_SECONDS, ledger.settled, crew)
        crew.note_memory()
        # A tenant's virtual time may stand some seconds ahead; the caretaker's next round drops it.
        within(KEYS_SECONDS, lambda: not leaked_keys(queue.client, queue.settings.prefix), crew)
        leaked = leaked_keys(queue.client, queue.settings.prefix)
        found, counters = ledger.audit(), queue.counters()
    waits = [wait(accepted, claimed, outages) for accepted, claimed in found.waits]
    growth = crew.growth()
    report(found, ledger, crew, outages, counters, leaked, settled)
    return {
        "lost": len(found.lost),
        "doubled": len(found.doubled),
        "extra_executions": counters.get("extra_executions", 0),
        "critical_p99_s": round(sorted(waits)[int(len(waits) * 0.99)], 3),
        "rss_growth_mb": None if growth is None else round(growth, 1),
        "leaked_keys": len(leaked),
    }


class Load(threading.Thread):
    """Clients of two tenants; an error in here is an error of the run."""

    def __init__(self, queue: Lifecycle, ledger: Ledger, seconds: float) -> None:
        super().__init__(name="load", daemon=True)
        self._queue = queue
        self._ledger = ledger
        self._seconds = seconds
        self._dice = random.Random(SEED)
        self._problem: BaseException | None = None
        self._runs = list(zip(RUNS_AT, self._store_documents(), strict=True))

    def run(self) -> None:
        """Requests at a steady rate; after an outage those that are late follow at once."""
        try:
            self._run()
        except BaseException as error:
            self._problem = error

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end; raises what went wrong."""
        super().join(timeout)
        if self._problem:
            raise self._problem

    def _run(self) -> None:
        begun = time.monotonic()
        jobs: list[tuple[str, str]] = []
        number = 0
        while (passed := time.monotonic() - begun) < self._seconds:
            if self._runs and passed >= self._seconds * self._runs[0][0]:
                self._ledger.run("soak", self._runs.pop(0)[1])
            kind = self._dice.random()
            if jobs and kind < REPEATS:
                self._ledger.repeat(self._dice.randrange(len(jobs)))
            elif jobs and kind < REPEATS + CANCELLATIONS:
                self._ledger.cancel(*self._dice.choice(jobs[-RATE:]))
            else:
                jobs.append(self._ledger.submit(self._job(plan=self._dice.random() < PLANS)))
            number += 1
            time.sleep(max(0.0, begun + number / RATE - time.monotonic()))

    def _job(self, *, plan: bool) -> Submission:
        (priority,) = self._dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
        seconds = self._dice.uniform(0.05, 0.8)
        return Submission(
            tenant=self._dice.choice(TENANTS),
            type=JobType.REVIEW if plan else JobType.ANALYZE,
            input={"seconds": seconds},
            priority=priority,
            plan=steps(seconds) if plan else (),
            cost=seconds,
        )

    def _store_documents(self) -> list[Submission]:
        """The work of each run to come, its documents stored, one for each second of the whole time."""
        documents = Documents(self._queue.client, self._queue.keys, Blobs(self._queue.settings.data_dir))
        works: list[Submission] = []
        for number, tenant in enumerate(TENANTS, 1):
            matter = f"matter-{number}"
            for clause in range(round(self._seconds)):
                text = f"Clause {clause} of {matter}: the tenant shall pay rent."
                documents.add(tenant, text.encode(), name="lease.txt", matter=matter)
            work = Submission(
                tenant, JobType.REVIEW, {"seconds": 0.2}, priority=Priority.BULK, plan=steps(0.2), matter=matter
            )
            works.append(work)
        return works


def steps(seconds: float) -> tuple[Step, ...]:
    """A plan of two steps in two lanes."""
    return Step("extract", "extract", Lane.EXTRACT, cost=seconds), Step("scan", "scan", Lane.ANALYZE, cost=seconds)


@dataclass(frozen=True, slots=True)
class Member:
    """A worker process; ``process`` is its ``subprocess.Popen``."""

    name: str
    process: Any


class Crew:
    """The workers: one that is never killed, the others in danger; whoever ended is followed by a new one."""

    def __init__(self, queue: Lifecycle, stack: ExitStack) -> None:
        self._queue = queue
        self._stack = stack
        self._dice = random.Random(SEED)
        self._memory: dict[int, list[tuple[float, float]]] = {}
        self._started = 0
        self._begun = time.monotonic()
        self.kills = self.ended_alone = 0
        self._members = [self._start() for _ in range(WORKERS)]

    def kill_one(self) -> None:
        """`kill -9` of any but the first; its leases are reaped or left to run out, as the dice say."""
        place = self._dice.randrange(1, len(self._members))
        victim = self._members[place]
        victim.process.kill()
        victim.process.wait()
        self.kills += 1
        if self._dice.random() < 0.5:
            patiently(lambda: self._queue.care(dead_workers=[victim.name]))
        self._members[place] = self._start()

    def look(self) -> None:
        """Note the memory, and start another for who ended by itself."""
        for place, member in enumerate(self._members):
            if member.process.poll() is not None:
                self.ended_alone += 1
                self._members[place] = self._start()
        self.note_memory()

    def note_memory(self) -> None:
        """Resident mebibytes of each worker now."""
        for member in self._members:
            try:
                memory = psutil.Process(member.process.pid).memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                continue
            self._memory.setdefault(member.process.pid, []).append((time.monotonic() - self._begun, memory))

    def growth(self) -> float | None:
        """Most mebibytes that a worker grew over the second half of the time; ``None`` if none lived through it."""
        last = max(at for rows in self._memory.values() for at, _ in rows)
        grown: list[float] = []
        for rows in self._memory.values():
            half = [memory for at, memory in rows if at >= last / 2]
            if rows[0][0] < last / 2 and rows[-1][0] > last - 1 and len(half) > 10:
                grown.append(statistics.median(half[-5:]) - statistics.median(half[:5]))
        return max(grown, default=None)

    def _start(self) -> Member:
        self._started += 1
        name = f"worker-{self._started}"
        return Member(name, self._stack.enter_context(worker(self._queue, name, THREADS)))


def trouble(server: EmbeddedValkey, crew: Crew, seconds: float) -> list[tuple[float, float]]:
    """Kill workers and the server until the time is over; answers when the server was away, in epoch seconds."""
    dice = random.Random(SEED)
    begun = time.monotonic()
    deaths = [seconds * part for part in SERVER_DIES_AT]
    due = dice.uniform(*KILL_SECONDS)
    outages: list[tuple[float, float]] = []
    while (passed := time.monotonic() - begun) < seconds:
        if passed >= due:
            crew.kill_one()
            due = passed + dice.uniform(*KILL_SECONDS)
        if deaths and passed >= deaths[0]:
            deaths.pop(0)
            died = time.time()
            server.kill()
            time.sleep(SERVER_DOWN_SECONDS)
            server.start()
            outages.append((died, time.time()))
        crew.look()
        time.sleep(LOOK_SECONDS)
    return outages


def within(seconds: float, condition: Any, crew: Crew) -> bool:
    """Whether the condition comes true in time, while the crew is looked after."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        crew.look()
        time.sleep(LOOK_SECONDS)
    return True


def wait(accepted: float, claimed: float, outages: Sequence[tuple[float, float]]) -> float:
    """Seconds between the two in which the server was there."""
    away = sum(max(0.0, min(claimed, back) - max(accepted, died)) for died, back in outages)
    return claimed - accepted - away


def report(
    found: Audit,
    ledger: Ledger,
    crew: Crew,
    outages: Sequence[tuple[float, float]],
    counters: dict[str, int],
    leaked: Sequence[str],
    settled: bool,
) -> None:
    """The table above the figures."""
    rows = {
        "accepted": len(ledger),
        "ended": ", ".join(f"{count} {state}" for state, count in found.states.most_common()),
        "all ended in time": settled,
        "workers killed": crew.kills,
        "workers that ended themselves": crew.ended_alone,
        "server away, s": ", ".join(f"{back - died:.2f}" for died, back in outages),
        "leases lost": counters.get("leases_lost", 0),
        "results refused": counters.get("stale_results", 0),
        "critical jobs": len(found.waits),
        "critical, worst waits, s": ", ".join(
            f"{value:.2f}" for value in sorted((wait(*pair, outages) for pair in found.waits), reverse=True)[:10]
        ),
        "lost": found.lost[:5],
        "doubled": found.doubled[:5],
        "leaked": leaked[:5],
    }
    for name, value in rows.items():
        print(f"{name:30s} {value}")


if __name__ == "__main__":
    sys.exit(main())
