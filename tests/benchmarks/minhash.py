"""MinHash sketches of 400 contracts beside rensa, and the near-duplicates they lead to: `make bench NAME=minhash`.

From texts to sketches of 128 numbers over runs of five words, on one core and in one process a core, the sides in turn.
rensa gets what is fastest from texts in Python alone: a list of strings a text, all sketched in one call.
``CASEMILL_ADAPTER`` adds our GPU path. An argument is the number of runs.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from services.settings import Settings
from tests.conftest import DATA
from workers.analysis.duplicates import find_duplicates
from workers.analysis.minhash import engine, sketch, sketches
from workers.analysis.shingles import Hashes, shingles

FOLDER = DATA / "near_duplicates"
RUNS, THRESHOLD = 7, 0.8
WORD = re.compile("[a-z0-9]+")


def texts() -> list[str]:
    """The contracts by name."""
    return [path.read_bytes().decode() for path in sorted((FOLDER / "texts").glob("*.txt"))]


def ours(part: list[str]) -> NDArray[np.uint32]:
    """Sketches on the CPU."""
    return sketches(part)


def rensa(part: list[str]) -> NDArray[np.uint32]:
    """The same by rensa over strings of five words."""
    made: list[list[str]] = []
    for text in part:
        words = WORD.findall(text.lower())
        made.append(list(map(" ".join, zip(words, words[1:], words[2:], words[3:], words[4:], strict=False))))
    return np.array(_rensa().digest_matrix_from_token_sets(made, 128, 42).to_rows(), np.uint32)


def _rensa() -> Any:
    return cast(Any, importlib.import_module("rensa")).RMinHash


SIDES: dict[str, Callable[[list[str]], NDArray[np.uint32]]] = {"ours": ours, "rensa": rensa}
_part: list[str] = []


def main() -> int:
    """Print a table and one JSON line."""
    runs, adapter = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS, Settings().adapter
    everything, cores = texts(), os.cpu_count() or 1
    if not everything:
        print(f"no texts in {FOLDER}")
        return 1
    sets = [shingles(text) for text in everything]
    expected = sketches(everything)
    alone = [ProcessPoolExecutor(1, get_context("spawn"), _begin, (0, 1))]
    each = [ProcessPoolExecutor(1, get_context("spawn"), _begin, (number, cores)) for number in range(cores)]
    work: dict[str, Callable[[], Any]] = {
        f"{side}, {where}": partial(_spread, side, pools)
        for where, pools in (("one core", alone), ("all cores", each))
        for side in SIDES
    }
    work |= {
        "ours, shingles alone": lambda: [shingles(text) for text in everything],
        "ours, sketches alone": lambda: [sketch(part) for part in sets],
        "rensa, sketches alone, from our hashes": lambda: _from_hashes(sets),
        "ours, pairs from sketches": lambda: compare(sets, expected),
    }
    if adapter is not None:
        print(f"adapter: {engine(adapter)}")
        assert np.array_equal(sketches(everything, adapter=adapter), expected)
        work["ours, GPU"] = lambda: sketches(everything, adapter=adapter)
    seconds = measured(work, runs)
    for pool in (*alone, *each):
        pool.shutdown()
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    total = sum(map(len, sets))
    print(f"{len(everything)} documents, {total} shingles, {cores} cores, {runs} runs, medians")
    for name, values in seconds.items():
        speed = f"{len(everything) / middle[name]:8.0f} documents/s {total / middle[name] / 1e6:8.2f} M shingles/s"
        print(f"{name:40s} {middle[name]:7.4f} s ({min(values):.4f} to {max(values):.4f}) {speed}")
    figures = {
        "ratio_rensa": middle["rensa, one core"] / middle["ours, one core"],
        "ratio_rensa_all_cores": middle["rensa, all cores"] / middle["ours, all cores"],
        "documents_per_s": len(everything) / middle["ours, one core"],
        "documents_per_s_all_cores": len(everything) / middle["ours, all cores"],
    }
    if adapter is not None:
        figures["gpu_ratio_rensa_all_cores"] = middle["rensa, all cores"] / middle["ours, GPU"]
    figures["precision"], figures["recall"] = accuracy(compare(sets, expected))
    figures["precision_sketches_alone"], figures["recall_sketches_alone"] = accuracy(estimated(expected))
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0


def measured(work: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[float]]:
    """Seconds of each piece of work, one after the other in every run; a run before the first warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for run in range(runs + 1):
        for name, do in work.items():
            begun = time.perf_counter()
            do()
            if run:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def _spread(side: str, pools: list[ProcessPoolExecutor]) -> None:
    parts = [pool.submit(_sketch, side) for pool in pools]
    assert all(len(part.result()) for part in parts)


def _begin(number: int, share: int) -> None:
    os.environ["RAYON_NUM_THREADS"] = "1"  # a process a core, for rensa too
    _part.extend(texts()[number::share])


def _sketch(side: str) -> NDArray[np.uint32]:
    return SIDES[side](_part)


def _from_hashes(sets: list[Hashes]) -> Any:
    offsets = np.cumsum([0, *map(len, sets)]).astype(np.uint64)
    return _rensa().digest_matrix_from_flat_token_hashes(np.concatenate(sets), offsets, 128, 42).to_rows()


def compare(sets: list[Hashes], found: NDArray[np.uint32]) -> set[tuple[int, int]]:
    """The pairs that the job would report."""
    result = find_duplicates(found, sets.__getitem__, threshold=THRESHOLD, tick=lambda: None)
    return {(pair.a, pair.b) for pair in result.pairs}


def estimated(found: NDArray[np.uint32]) -> set[tuple[int, int]]:
    """The pairs that the sketches alone would give."""
    return {
        (a, b)
        for b in range(len(found))
        for a in np.flatnonzero((found[:b] == found[b]).mean(axis=1) >= THRESHOLD).tolist()
    }


def accuracy(found: set[tuple[int, int]]) -> tuple[float, float]:
    """Precision and recall over the labelled pairs."""
    names = {path.stem: number for number, path in enumerate(sorted((FOLDER / "texts").glob("*.txt")))}
    rows = [json.loads(line) for line in (FOLDER / "pairs.jsonl").read_text("utf-8").splitlines()]
    labelled = {(names[row["a"]], names[row["b"]]) for row in rows if row["jaccard"] >= THRESHOLD}
    right = len(found & labelled)
    return round(right / len(found), 4), round(right / len(labelled), 4)


if __name__ == "__main__":
    sys.exit(main())
