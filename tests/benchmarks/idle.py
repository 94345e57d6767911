"""What a stack costs that has nothing to do: `make bench NAME=idle`.

`casemill up` with the fake engine, which loads no weights, and nobody asks it anything. Processor time and resident
memory of each process, those below it counted in; the supervisor is this script, which looks after the stack as
`casemill up` does.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

from gateway.stack.supervisor import Stack
from services.settings import Settings

SETTLE_SECONDS = 10
SECONDS = 30
# How often `casemill up` looks at its children.
WATCH_SECONDS = 0.5


def main() -> int:
    """Print a line for each process and one JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        values = {"data_dir": Path(folder), "port": 0, "flower_port": 0, "engine": "fake"}
        with Stack(Settings.model_validate(values), print) as stack:
            stack.start()
            pids = {child.name: child.pid for child in stack._all()}
            pids |= {"server": stack._server and stack._server.pid, "supervisor": psutil.Process().pid}
            watch(stack, SETTLE_SECONDS)
            trees = {name: tree(pid, alone=name == "supervisor") for name, pid in pids.items() if pid}
            before, begun = spent(trees), time.monotonic()
            watch(stack, SECONDS)
            after, took = spent(trees), time.monotonic() - begun
            memory = {name: sum(each.memory_info().rss for each in group) / 2**20 for name, group in trees.items()}
    share = {name: 100 * (after[name] - before[name]) / took for name in trees}
    for name in trees:
        print(f"{name:12s} {share[name]:5.2f} % of a core  {memory[name]:6.0f} MiB")
    figures = {
        "idle_cpu_percent_of_a_core": round(sum(share.values()), 2),
        "memory_mb": {name: round(value) for name, value in memory.items()},
    }
    print(json.dumps(figures))
    return 0


def watch(stack: Stack, seconds: float) -> None:
    """Look after the stack as `casemill up` does, for so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stack.watch()
        time.sleep(WATCH_SECONDS)


def tree(pid: int, *, alone: bool) -> list[psutil.Process]:
    """A process and, unless it is taken alone, those below it."""
    process = psutil.Process(pid)
    return [process] if alone else [process, *process.children(recursive=True)]


def spent(trees: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """Processor seconds used so far, by name."""
    return {name: sum(sum(each.cpu_times()[:2]) for each in group) for name, group in trees.items()}


if __name__ == "__main__":
    sys.exit(main())
