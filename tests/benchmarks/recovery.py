"""How fast jobs run again after a crash: `make bench NAME=recovery`.

A worker is killed with 16 jobs running while another stands idle: once where nobody saw the death, so that the leases
must run out, and once under the supervisor of `casemill up`. Each figure is the time from the kill until all 16 run on
the other worker.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.stack.children import Child
from gateway.stack.supervisor import Stack
from gateway.stack.valkey import EmbeddedValkey
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.chaos.installation import environment, running, state, submit, worker

JOBS = 16
LEASE = 5.0
RUNS = 3
# How often `casemill up` looks at its children.
WATCH_SECONDS = 0.5


def main() -> int:
    """Print each run and one JSON line."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for number in range(RUNS):
        for supervised, values in seconds.items():
            with tempfile.TemporaryDirectory() as folder:
                values.append(recovery(Path(folder), supervised))
            print(f"run {number + 1}, {'supervised' if supervised else 'by lease  '}: {values[-1]:.2f} s", flush=True)
    figures = {
        "recovery_lease_s": round(statistics.median(seconds[False]), 2),
        "lease_s": LEASE,
        "recovery_supervised_s": round(statistics.median(seconds[True]), 2),
    }
    print(json.dumps(figures))
    return 0


def recovery(folder: Path, supervised: bool) -> float:
    """Seconds from the kill of a worker until its jobs run on another."""
    server = EmbeddedValkey(folder / "valkey")
    values = {"REDIS_URL": server.start(), "lease_seconds": LEASE, "data_dir": folder}
    settings = Settings.model_validate(values)
    queue = Lifecycle(settings)
    try:
        with Stack(settings, print) as stack:
            first = Child("first", named_by_process(), environment(settings), folder / "logs")
            first.start()
            for _ in range(JOBS):
                submit(queue, seconds=600)
            wait(lambda: running(queue) == JOBS)
            with worker(queue, "second", JOBS):
                ready = submit(queue)
                wait(lambda: state(queue, ready) == "succeeded")
                # Part of the stack for the supervised run; else its death is nobody's business.
                stack._children[:] = [first] if supervised else []
                return kill(queue, first, stack.watch)
    finally:
        queue.client.close()
        server.stop()


def kill(queue: Lifecycle, child: Child, watch: Callable[[], None]) -> float:
    """Kill the worker and look after the stack as `casemill up` does, until its jobs run again."""
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    killed = looked = time.monotonic()
    raw: Any = queue.client
    while sum(member.endswith("|2") for member in raw.zrange(queue.keys("leases"), 0, -1)) < JOBS:
        if time.monotonic() - looked >= WATCH_SECONDS:
            looked = time.monotonic()
            watch()
        if time.monotonic() - killed > 60:
            raise SystemExit("the jobs do not run again")
        time.sleep(0.005)
    took = time.monotonic() - killed
    child.wait(1)
    return took


def named_by_process() -> list[str]:
    """A worker of chaos tasks whose name ends in its process id, as the supervisor knows its workers."""
    script = f'exec "$0" -m tests.chaos.worker "first@$1.$$" {JOBS}'
    return ["sh", "-c", script, sys.executable, socket.gethostname()]


def wait(condition: Callable[[], bool]) -> None:
    """Until the condition holds; a minute at most."""
    until = time.monotonic() + 60
    while not condition():
        if time.monotonic() > until:
            raise SystemExit("a worker does not start")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
