"""MinHash sketches of 400 contracts beside rensa, and the near-duplicates they lead to: `make bench NAME=minhash`.

From texts to sketches of 128 numbers over runs of five words, on one core and in one process a core, the sides in turn,
each time twice, of which the second counts.
rensa gets what is fastest from texts in Python alone: a list of strings a text, all sketched in one call.
``CASEMILL_ADAPTER`` adds our GPU path; on a real GPU all cores and the GPU do it again over the contracts 12 times, the
size of a large document room, since a GPU that is given little at a time stays slow. An argument is the number of runs.
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
RUNS, THRESHOLD, COPIES = 7, 0.8, 12
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
    """Print the tables and one JSON line."""
    runs, adapter = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS, Settings().adapter
    everything, cores = texts(), os.cpu_count() or 1
    if not everything:
        print(f"no texts in {FOLDER}")
        return 1
    sets = [shingles(text) for text in everything]
    expected = sketches(everything)
    alone, each = _pools(1), _pools(cores)
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
    print(f"{sum(map(len, sets))} shingles, {cores} cores, {runs} runs, medians")
    middle = table(work, runs, len(everything))
    for pool in (*alone, *each):
        pool.shutdown()
    figures = {
        "ratio_rensa": middle["rensa, one core"] / middle["ours, one core"],
        "ratio_rensa_all_cores": middle["rensa, all cores"] / middle["ours, all cores"],
        "documents_per_s": len(everything) / middle["ours, one core"],
        "documents_per_s_all_cores": len(everything) / middle["ours, all cores"],
    }
    if adapter is not None:
        figures["gpu_ratio_rensa_all_cores"] = middle["rensa, all cores"] / middle["ours, GPU"]
        if "llvmpipe" not in engine(adapter):
            figures |= room(everything * COPIES, adapter, runs)
    figures["precision"], figures["recall"] = accuracy(compare(sets, expected))
    figures["precision_sketches_alone"], figures["recall_sketches_alone"] = accuracy(estimated(expected))
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0


def room(everything: list[str], adapter: str, runs: int) -> dict[str, float]:
    """The figures of all cores and the GPU over so many texts."""
    pools = _pools(os.cpu_count() or 1, COPIES)
    work: dict[str, Callable[[], Any]] = {f"{side}, all cores": partial(_spread, side, pools) for side in SIDES}
    work["ours, GPU"] = lambda: sketches(everything, adapter=adapter)
    middle = table(work, runs, len(everything))
    for pool in pools:
        pool.shutdown()
    return {f"gpu_ratio_rensa_all_cores_{len(everything)}": middle["rensa, all cores"] / middle["ours, GPU"]}


def table(work: dict[str, Callable[[], Any]], runs: int, documents: int) -> dict[str, float]:
    """Print what each piece of work takes; the medians."""
    seconds = measured(work, runs)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{documents} documents")
    for name, values in seconds.items():
        speed = f"{documents / middle[name]:8.0f} documents/s"
        print(f"{name:40s} {middle[name]:7.4f} s ({min(values):.4f} to {max(values):.4f}) {speed}")
    return middle


def measured(work: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[float]]:
    """Seconds of each piece of work, one after the other in every run, done twice of which the second counts."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(runs):
        for name, do in work.items():
            do()
            begun = time.perf_counter()
            do()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def _spread(side: str, pools: list[ProcessPoolExecutor]) -> None:
    parts = [pool.submit(_sketch, side) for pool in pools]
    assert all(len(part.result()) for part in parts)


def _pools(count: int, copies: int = 1) -> list[ProcessPoolExecutor]:
    """Processes of which each has its share of the texts."""
    spawn = get_context("spawn")
    return [ProcessPoolExecutor(1, spawn, _begin, (number, count, copies)) for number in range(count)]


def _begin(number: int, share: int, copies: int) -> None:
    os.environ["RAYON_NUM_THREADS"] = "1"  # a process a core, for rensa too
    _part.extend(texts()[number::share] * copies)


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
