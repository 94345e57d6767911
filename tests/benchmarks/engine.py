"""The engine beside llama-server in process and the plain `Llama` class on two cores: `make bench NAME=engine`.

Gemma 3 270M, 16 prompts of 128 tokens at once, 64 tokens each; every round has prompts of its own, cut from the
developer contracts, the same for all sides, and the sides take turns. Then the same through the whole stack, from HTTP
to SSE.
`python -m tests.benchmarks.engine 3` makes so many rounds instead of seven.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.models import Catalog
from tests.benchmarks.engine_side import SEQUENCES, SIDES, Side
from tests.conftest import DATA
from workers.engines.demo_weights import install_demo_models
from workers.engines.llama_api import LlamaModel

PROMPT, GENERATE = 128, 64
GEMMA = "gemma-3-270m"
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0, "top_p": 1.0},
    "T=.8, top-p .95": {"temperature": 0.8, "top_p": 0.95},
}


def main() -> int:
    """Print a table and one JSON line."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(Path(folder) / "models")
        install_demo_models(catalog)
        model = catalog.get(GEMMA).path
        prompts = passages(model, PROMPT)
        sides = [Side(name, model) for name in SIDES]
        for side in sides:
            side.ask([next(prompts)], max_tokens=4, temperature=0.0, top_p=1.0)
        rates: dict[tuple[str, str], list[float]] = {}
        for number in range(rounds):
            for label, sampling in SAMPLINGS.items():
                asked = [next(prompts) for _ in range(SEQUENCES)]
                for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                    done = side.ask(asked, max_tokens=GENERATE, **sampling)
                    rates.setdefault((label, side.name), []).append(done["tokens"] / done["seconds"])
        for side in sides:
            side.close()
    print(f"{'generated tokens a second':28s}" + "".join(f"{name:>12s}" for name in SIDES))
    for label in SAMPLINGS:
        print(f"{label:28s}" + "".join(f"{statistics.median(rates[label, name]):12.1f}" for name in SIDES))
    ratios = {
        name: min(
            statistics.median(a / b for a, b in zip(rates[label, "casemill"], rates[label, name], strict=True))
            for label in SAMPLINGS
        )
        for name in SIDES[1:]
    }
    print(json.dumps({"ratio_xllamacpp": round(ratios["xllamacpp"], 3), "ratio_naive": round(ratios["naive"], 3)}))
    return 0


def passages(path: Path, tokens: int) -> Iterator[str]:
    """Different passages of contracts of so many tokens each, the beginning one included."""
    llama = LlamaModel(path, gpu_layers=0)
    for file in sorted((DATA / "cuad" / "texts").glob("*.txt")):
        text = file.read_text(encoding="utf-8")
        for start in range(2000, len(text) - tokens * 12, tokens * 12):
            words = text[start : start + tokens * 8].split(" ")[1:]
            counts = [len(llama.tokenize(" ".join(words[:n]), special=False, start=True)) for n in range(len(words))]
            if tokens in counts:
                yield " ".join(words[: counts.index(tokens)])
    raise SystemExit("The contracts are used up: ask for fewer rounds.")


if __name__ == "__main__":
    sys.exit(main())
