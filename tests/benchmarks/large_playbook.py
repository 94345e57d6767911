"""A playbook of 100,000 literals, from its YAML to the tables of each engine: `make bench NAME=large_playbook`.

Each step is timed once, in the order in which a worker takes them. The GPU's tables are built and not uploaded.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from services.playbooks import load_playbook
from shaders.automaton import build_automata
from shaders.factors import ScanPlan
from workers.analysis.ahocorasick_engine import AhoCorasickEngine
from workers.analysis.prepared import CpuEngine

LITERALS = 100_000
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_Made = TypeVar("_Made")


def main() -> int:
    """Print a table and one JSON line."""
    text = yaml_of(LITERALS)
    seconds: dict[str, float] = {}

    def timed(step: str, make: Callable[[], _Made]) -> _Made:
        begun = time.perf_counter()
        made = make()
        seconds[step] = round(time.perf_counter() - begun, 2)
        print(f"{step:12s} {seconds[step]:6.2f} s", flush=True)
        return made

    print(f"{LITERALS:,} literals, {len(text) / 2**20:.1f} MiB of YAML")
    playbook = timed("yaml", lambda: load_playbook(text))
    plan = timed("plan", lambda: ScanPlan(playbook))
    tables = timed("gpu_tables", lambda: list(build_automata(plan)))
    for name, engine in {engine.name: engine for engine in (CpuEngine, AhoCorasickEngine)}.items():
        timed(name, partial(engine, plan))
    size = sum(table.table.nbytes for table in tables)
    print(f"{len(tables)} GPU tables, {size / 2**20:.0f} MiB")
    print(json.dumps({f"{step}_s": value for step, value in seconds.items()}))
    return 0


def yaml_of(count: int) -> str:
    """A playbook of as many invented names of two words; the same at every run."""
    chance = random.Random(1)
    names: dict[str, None] = {}
    while len(names) < count:
        words = ("".join(chance.choices(_LETTERS, k=chance.randint(4, 10))) for _ in range(2))
        names[" ".join(words)] = None
    lines = "\n".join(f"      - {name}" for name in names)
    return f"name: large\ncategories:\n  - id: names\n    title: Names\n    weight: 1\n    literals:\n{lines}\n"


if __name__ == "__main__":
    sys.exit(main())
