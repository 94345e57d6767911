"""The policies of placement over unequal workers: `make bench NAME=placement`.

Three worker processes of four slots each, whose sleeping jobs take 1, 2 and 4 times as long; weights 4, 2, 1. The same
jobs arrive at the same moments under each policy, the policies in turn, medians of three runs.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.stack.valkey import EmbeddedValkey
from services.fleet import Fleet
from services.jobs import JobType, Submission
from services.lifecycle import Lifecycle
from services.settings import Settings

POLICIES = ("pull", "round_robin", "least_connections", "weighted")
WORKERS = (("fast", 1, 4), ("middle", 2, 2), ("slow", 4, 1))  # name, slowness, weight
SLOTS = 4
RUNS = 3


@dataclass(frozen=True, slots=True)
class Scenario:
    """Jobs of ``seconds`` on the fast worker, ``count`` of them, one every ``gap`` seconds."""

    name: str
    seconds: float
    count: int
    gap: float


# Arrivals at about 90 % of what the three can do together.
SCENARIOS = (Scenario("60 ms", 0.06, 200, 0.0095), Scenario("0.5 s", 0.5, 40, 0.08))


@dataclass(frozen=True, slots=True)
class Run:
    """One run: seconds from the first arrival to the last end, seconds from arrival to end of each, jobs by worker."""

    makespan: float
    took: list[float]
    share: Counter[str]


def main() -> int:
    """Print each run, a table and one JSON line, the last of the long jobs."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that server and workers end with it
    runs: dict[tuple[str, str], list[Run]] = {}
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedValkey(Path(folder))
        url = server.start()
        try:
            with houses(url, folder) as found:
                for _ in range(RUNS):
                    for scenario in SCENARIOS:
                        for policy, lifecycle in found.items():
                            run = measure(lifecycle, scenario)
                            print(f"{scenario.name:6s} {policy:18s} {run.makespan:7.2f} s", flush=True)
                            runs.setdefault((scenario.name, policy), []).append(run)
        finally:
            server.stop()
    print(f"{'jobs':6s} {'policy':18s} {'makespan':>9s} {'mean':>7s} {'p95':>7s}  share fast/middle/slow")
    for (scenario, policy), rows in runs.items():
        share = "/".join(f"{middle([run.share[name] for run in rows]):.0f}" for name, _, _ in WORKERS)
        mean = middle([statistics.mean(run.took) for run in rows])
        print(
            f"{scenario:6s} {policy:18s} {makespan(rows):7.2f} s {mean:5.2f} s {p95(rows):5.2f} s  {share}",
        )
    long = SCENARIOS[-1].name
    figures = {f"{policy}_makespan_s": round(makespan(runs[long, policy]), 3) for policy in POLICIES}
    figures |= {f"{policy}_p95_s": round(p95(runs[long, policy]), 3) for policy in POLICIES}
    print(json.dumps(figures))
    return 0


def middle(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def makespan(runs: list[Run]) -> float:
    """Median seconds from the first arrival to the last end."""
    return middle([run.makespan for run in runs])


def p95(runs: list[Run]) -> float:
    """Median of the runs' 95th percentiles of seconds from arrival to end."""
    return middle([sorted(run.took)[int(len(run.took) * 0.95)] for run in runs])


@contextmanager
def houses(url: str, folder: str) -> Generator[dict[str, Lifecycle]]:
    """An installation with three workers for each policy; those whose turn it is not idle."""
    with ExitStack() as stack:
        found: dict[str, Lifecycle] = {}
        for policy in POLICIES:
            values = {"REDIS_URL": url, "prefix": f"{policy}:", "data_dir": folder, "placement": policy}
            found[policy] = Lifecycle(Settings.model_validate(values))
            for name, slowness, weight in WORKERS:
                stack.enter_context(worker(found[policy].settings, name, slowness, weight))
        for lifecycle in found.values():
            fleet = Fleet(lifecycle.client, lifecycle.keys)
            wait(lambda fleet=fleet: len(fleet.workers()) == len(WORKERS))
            # Every thread and connection has worked once before anything is measured.
            finished(lifecycle, [submit(lifecycle, 0.1) for _ in range(2 * SLOTS * len(WORKERS))])
            print(f"{lifecycle.settings.placement}: three workers are up", flush=True)
        yield found


def measure(lifecycle: Lifecycle, scenario: Scenario) -> Run:
    """One run of a scenario."""
    begun = time.monotonic()
    jobs: list[str] = []
    for place in range(scenario.count):
        time.sleep(max(0.0, begun + place * scenario.gap - time.monotonic()))
        jobs.append(submit(lifecycle, scenario.seconds))
    return finished(lifecycle, jobs)


def submit(lifecycle: Lifecycle, seconds: float) -> str:
    """Submit a sleeping job."""
    return lifecycle.submit(Submission("bench", JobType.ANALYZE, {"seconds": seconds}))[0].id


def finished(lifecycle: Lifecycle, jobs: list[str]) -> Run:
    """What the records of the jobs say once all have succeeded."""
    client: Any = lifecycle.client

    def records() -> list[dict[str, str]]:
        pipeline = client.pipeline(transaction=False)
        for job in jobs:
            pipeline.hgetall(lifecycle.keys("job", tenant="bench", id=job))
        return pipeline.execute()

    wait(lambda: all(record["state"] == "succeeded" for record in records()))
    rows = [(float(record["created"]), float(record["finished"]), record["worker"]) for record in records()]
    took = [finished - created for created, finished, _ in rows]
    share = Counter(worker for _, _, worker in rows)
    return Run(max(row[1] for row in rows) - min(row[0] for row in rows), took, share)


@contextmanager
def worker(settings: Settings, name: str, slowness: float, weight: int) -> Generator[None]:
    """A worker process under the settings' policy."""
    env = os.environ | {
        "REDIS_URL": settings.redis_url,
        "CASEMILL_PREFIX": settings.prefix,
        "CASEMILL_DATA_DIR": str(settings.data_dir),
        "CASEMILL_PLACEMENT": settings.placement,
    }
    command = [sys.executable, "-m", "tests.placed_worker", name, "--slots", str(SLOTS)]
    command += ["--weight", str(weight), "--slowness", str(slowness)]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def wait(condition: Any) -> None:
    """Until the condition holds; two minutes at most."""
    until = time.monotonic() + 120
    while not condition():
        if time.monotonic() > until:
            raise SystemExit("the workers do not get on")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
