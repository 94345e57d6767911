"""The nearest of 50,000 vectors beside numpy and faiss: `make bench NAME=similarity`.

Each side answers the same 64 queries with their best ten, all of them in turn, each time twice, of which the second
counts: threads of the side before spin on for a while. The GPU side holds the vectors and is there where
``CASEMILL_ADAPTER`` names an adapter; what is uploaded once is measured apart. On a real GPU all is done again over
500,000 vectors, the clauses of some thousand contracts. An argument is the number of runs.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.settings import load_settings
from shaders.runtime import runtime
from shaders.similarity import GpuVectors
from workers.analysis.similarity import Nearest, nearest, nearest_on

VECTORS, MANY, WIDTH, QUERIES, K, RUNS = 50_000, 500_000, 384, 64, 10, 9

Places = NDArray[np.int64]
Side = Callable[[], Places]


def main() -> int:
    """Print a table a size and one JSON line."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    figures = measured(VECTORS, runs)
    if "adapter" in figures and "llvmpipe" not in figures["adapter"]:
        figures |= {f"{name}_{MANY}": value for name, value in measured(MANY, runs).items() if name != "adapter"}
    print(json.dumps(figures))
    return 0


def measured(count: int, runs: int) -> dict[str, Any]:
    """The figures over so many vectors; exits where the sides do not find the same."""
    rng = np.random.default_rng(11)
    vectors, queries = unit(rng, count), unit(rng, QUERIES)
    sides: dict[str, Side] = {
        "ours": lambda: places(nearest(vectors, queries, K)),
        "numpy": lambda: by_numpy(vectors, queries),
        "faiss": by_faiss(vectors, queries),
    }
    figures: dict[str, Any] = {}
    if adapter := load_settings().adapter:
        began = time.perf_counter()
        resident = GpuVectors(vectors, runtime(adapter))
        figures = {"adapter": resident.runtime.name, "upload_ms": round(1000 * (time.perf_counter() - began), 2)}
        sides["gpu"] = lambda: places(nearest_on(resident, vectors, queries, K))
    answers = {name: side() for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            side()
            began = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - began)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{count} vectors")
    for name, values in seconds.items():
        same = np.mean(answers[name] == answers["ours"])
        spread = f"{1000 * min(values):.1f} to {1000 * max(values):.1f} ms"
        print(
            f"{name:6s} {1000 * middle[name]:8.1f} ms  {QUERIES / middle[name]:8.0f} queries/s  {spread}  same {same}"
        )
    if any((answers[name] != answers["ours"]).mean() > 0.01 for name in sides):
        raise SystemExit("the sides do not find the same vectors")
    figures |= {f"ratio_{peer}": round(middle[peer] / middle["ours"], 3) for peer in ("numpy", "faiss")}
    if "gpu" in middle:
        figures |= {"ratio_gpu_numpy": round(middle["numpy"] / middle["gpu"], 3)}
    return figures


def unit(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Random vectors of length 1."""
    vectors = rng.standard_normal((count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def places(found: Nearest) -> Places:
    """The places as one array."""
    return np.array(found.places)


def by_numpy(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> Places:
    """One product of matrices, the best of each row, sorted: what one writes without a library for it."""
    scores = queries @ vectors.T
    best = np.argpartition(-scores, K - 1, axis=1)[:, :K]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)


def by_faiss(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> Side:
    """The exact index of faiss."""
    faiss: Any = importlib.import_module("faiss")
    index: Any = faiss.IndexFlatIP(WIDTH)
    index.add(vectors)
    return lambda: index.search(queries, K)[1]


if __name__ == "__main__":
    sys.exit(main())
