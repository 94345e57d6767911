"""The engine beside llama-server in process and the plain `Llama` class on two cores: `make bench NAME=engine`.

Gemma 3 270M, 16 prompts of 128 tokens at once, 64 tokens each; every round has prompts of its own, cut from the
developer contracts, the same for all sides, and the sides take turns. Then, in turn with the engine alone, the same
through the whole stack, from HTTP to SSE, as bulk work of which every text is followed to its end; and single requests,
whose first tokens are compared.
`python -m tests.benchmarks.engine 3` makes so many rounds instead of seven.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

from services.jobs import Priority
from services.models import Catalog
from tests.benchmarks.engine_side import CONTEXT, SEQUENCES, SIDES, Side
from tests.benchmarks.generation import GREEDY, Passages, ask, demo_stack
from tests.integration.conftest import Running
from workers.engines.demo_weights import GEMMA, install_demo_models

PROMPT, GENERATE = 128, 64
SINGLES, SINGLE_TOKENS = 20, 16
SAMPLINGS: dict[str, dict[str, Any]] = {"greedy": GREEDY, "T=.8, top-p .95": {"temperature": 0.8, "top_p": 0.95}}


def main() -> int:
    """Print tables and one JSON line."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(Path(folder) / "models")
        install_demo_models(catalog)
        model = catalog.get(GEMMA).path
        passages = Passages(model)
        figures = beside_peers(model, passages, rounds)
        with demo_stack(Path(folder), sequences=SEQUENCES, context=CONTEXT) as stack:
            figures |= through_the_stack(stack, model, passages, rounds)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    return 0


def beside_peers(model: Path, passages: Passages, rounds: int) -> dict[str, float]:
    """The ratios to the peers, of the sampling that is worse for us."""
    sides = [Side(name, model) for name in SIDES]
    for side in sides:
        side.ask([passages.next(PROMPT)], max_tokens=4, **GREEDY)
    rates: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for label, sampling in SAMPLINGS.items():
            asked = [passages.next(PROMPT) for _ in range(SEQUENCES)]
            for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                done = side.ask(asked, max_tokens=GENERATE, **sampling)
                rates.setdefault((label, side.name), []).append(done["tokens"] / done["seconds"])
    for side in sides:
        side.close()
    print(f"{'generated tokens a second':28s}" + "".join(f"{name:>12s}" for name in SIDES))
    for label in SAMPLINGS:
        print(f"{label:28s}" + "".join(f"{statistics.median(rates[label, name]):12.1f}" for name in SIDES))
    return {
        f"ratio_{name}": min(
            statistics.median(a / b for a, b in zip(rates[label, SIDES[0]], rates[label, name], strict=True))
            for label in SAMPLINGS
        )
        for name in SIDES[1:]
    }


def through_the_stack(stack: Running, model: Path, passages: Passages, rounds: int) -> dict[str, float]:
    """Tokens a second beside the engine alone, and by how much later the first token comes, in milliseconds."""
    alone = Side(SIDES[0], model)
    alone.ask([passages.next(PROMPT)], max_tokens=4, **GREEDY)
    ask(stack, passages.next(PROMPT), Priority.BULK, max_tokens=4, **GREEDY)
    ratios: list[float] = []
    rates: dict[str, list[float]] = {"alone": [], "stack": []}
    for number in range(rounds):
        asked = [passages.next(PROMPT) for _ in range(SEQUENCES)]
        for side in ("alone", "stack") if number % 2 else ("stack", "alone"):
            rates[side].append(queued(stack, asked) if side == "stack" else unqueued(alone, asked))
        ratios.append(rates["stack"][-1] / rates["alone"][-1])
    firsts: dict[str, list[float]] = {"alone": [], "stack": []}
    for _ in range(SINGLES):
        prompt = passages.next(PROMPT)
        firsts["alone"].append(alone.ask([prompt], max_tokens=SINGLE_TOKENS, **GREEDY)["first"] * 1000)
        answer = ask(stack, prompt, Priority.NORMAL, max_tokens=SINGLE_TOKENS, **GREEDY)
        firsts["stack"].append(answer.first * 1000)
    alone.close()
    print(f"{'':28s}" + "".join(f"{side:>12s}" for side in rates))
    print(f"{'generated tokens a second':28s}" + "".join(f"{statistics.median(rates[side]):12.1f}" for side in rates))
    print(f"{'first token, ms':28s}" + "".join(f"{statistics.median(firsts[side]):12.1f}" for side in firsts))
    added = statistics.median(firsts["stack"]) - statistics.median(firsts["alone"])
    return {"stack_ratio": statistics.median(ratios), "added_ttft_ms": added}


def unqueued(side: Side, asked: list[str]) -> float:
    """Tokens a second of the engine alone."""
    done = side.ask(asked, max_tokens=GENERATE, **GREEDY)
    return done["tokens"] / done["seconds"]


def queued(stack: Running, asked: list[str]) -> float:
    """Tokens a second through the stack, until the last event of the last job has been read."""
    with ThreadPoolExecutor(len(asked)) as pool:
        begun = perf_counter()
        answers = list(pool.map(lambda text: ask(stack, text, Priority.BULK, max_tokens=GENERATE, **GREEDY), asked))
        seconds = perf_counter() - begun
    return sum(stack.job(answer.job)["result"]["tokens_out"] for answer in answers) / seconds


if __name__ == "__main__":
    sys.exit(main())
