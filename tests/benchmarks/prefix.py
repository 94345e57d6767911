"""Requests that begin alike, beside llama-server in process with its prompt caches: `make bench NAME=prefix`.

Gemma 3 270M on two threads: 16 requests at once that share 400 of their 450 prompt tokens, 32 tokens generated each, at
the lowest priority and in one scope. Every round has new texts, cut from the developer contracts, the same for both
sides, which take turns. llama-server runs with the best of `FLAGS`, which a first round finds, and is asked in two
ways: all at once as we are, and in the order that is kindest to its cache, one request first and then the other 15; the
better way counts. A round in which a text ends early on one side is made again with other texts.
`python -m tests.benchmarks.prefix 3` makes so many rounds instead of seven.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from services.models import Catalog
from tests.benchmarks.engine_side import SEQUENCES, Side
from tests.benchmarks.generation import GREEDY, Passages
from workers.engines.demo_weights import GEMMA, install_demo_models

SHARED, PROMPT, GENERATE = 400, 450, 32
SCOPE: Final = "firm"
CACHED: Final = {"cache_prompt": True}  # the cache in memory keeps its default of 8 GiB
FLAGS: Final[dict[str, dict[str, Any]]] = {
    "caches on": CACHED,
    "n_cache_reuse=64": CACHED | {"n_cache_reuse": 64},
    "slot_prompt_similarity=0": CACHED | {"slot_prompt_similarity": 0.0},
    "kv_unified": CACHED | {"kv_unified": True},
    "kv_unified, cache_idle_slots": CACHED | {"kv_unified": True, "cache_idle_slots": True},
    "swa_full, n_cache_reuse=64": CACHED | {"swa_full": True, "n_cache_reuse": 64},
}
# How many requests go before the others.
WAYS: Final = {"all at once": 0, "one first": 1}


def main() -> int:
    """Print tables and one JSON line."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(Path(folder) / "models")
        install_demo_models(catalog)
        model = catalog.get(GEMMA).path
        passages = Passages(model)
        flags = best_flags(model, passages)
        sides = [Side("casemill", model), Side("xllamacpp", model, FLAGS[flags])]
        for side in sides:
            timed(side, prompts(passages), first=1)
        seconds: dict[tuple[str, str], list[float]] = {}
        for number in range(rounds):
            for way, first in WAYS.items():
                found = equally_long(passages, sides[number % 2 :] + sides[: number % 2], first)
                for name, took in found.items():
                    seconds.setdefault((way, name), []).append(took)
        for side in sides:
            side.close()
    print(f"\n{'seconds for 16 requests':28s}{'casemill':>12s}{'xllamacpp':>12s}{'ratio':>8s}   ({flags})")
    ratios: dict[str, float] = {}
    for way in WAYS:
        ours, peer = seconds[way, "casemill"], seconds[way, "xllamacpp"]
        ratios[way] = statistics.median(b / a for a, b in zip(ours, peer, strict=True))
        print(f"{way:28s}{statistics.median(ours):12.2f}{statistics.median(peer):12.2f}{ratios[way]:8.2f}")
    print(json.dumps({"ratio_xllamacpp": round(min(ratios.values()), 3)}))
    return 0


def best_flags(model: Path, passages: Passages) -> str:
    """The flags with which llama-server's better way is fastest; each has one round for itself."""
    took: dict[str, float] = {}
    print(f"{'xllamacpp, seconds':32s}" + "".join(f"{way:>14s}" for way in WAYS))
    for name, flags in FLAGS.items():
        side = Side("xllamacpp", model, flags)
        timed(side, prompts(passages), first=1)
        found = [timed(side, prompts(passages), first)[0] for first in WAYS.values()]
        side.close()
        took[name] = min(found)
        print(f"{name:32s}" + "".join(f"{seconds:14.2f}" for seconds in found), flush=True)
    return min(took, key=lambda name: took[name])


def equally_long(passages: Passages, sides: list[Side], first: int) -> dict[str, float]:
    """Seconds by side, for texts of which each side generates all its tokens; ours are always asked at once."""
    while True:
        asked = prompts(passages)
        done = {side.name: timed(side, asked, first if side.name == "xllamacpp" else 0) for side in sides}
        if {tokens for _, tokens in done.values()} == {SEQUENCES * GENERATE}:
            return {name: seconds for name, (seconds, _) in done.items()}
        print(f"made again, as a text ended early: {done}")


def prompts(passages: Passages) -> list[str]:
    """New prompts, one for each sequence, that begin alike."""
    shared = passages.next(SHARED)
    return [passages.next(PROMPT, after=shared) for _ in range(SEQUENCES)]


def timed(side: Side, asked: list[str], first: int) -> tuple[float, float]:
    """Seconds and generated tokens, with so many requests before the others, which are then asked at once."""
    parts = [part for part in (asked[:first], asked[first:]) if part]
    done = [side.ask(part, scope=SCOPE, max_tokens=GENERATE, **GREEDY) for part in parts]
    return sum(part["seconds"] for part in done), sum(part["tokens"] for part in done)


if __name__ == "__main__":
    sys.exit(main())
