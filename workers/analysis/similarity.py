"""The nearest of many vectors to each query, exactly: candidates by float32 products on GPU or CPU, then one rule.

A candidate's score is the float64 sum of its float64 products in numpy's order; the best ``k`` come by score, those of
equal score by place. Float32 products only choose whom that is computed for, with room for their error, so every device
gives the same answer to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shaders.runtime import runtime
from shaders.similarity import MAX_KEPT, GpuVectors

Vectors = NDArray[np.float32]

CPU: Final = "numpy"
_MARGIN: Final = 32
# Scores that are computed in one go, 16 MiB of them, vectors whose scores set the first bar, and those that are scored
# exactly in one go: the numbers of so many, 16 MiB in float64.
_BLOCK_SCORES: Final = 1 << 22
_FIRST: Final = 4096
_EXACT_NUMBERS: Final = 1 << 21


@dataclass(frozen=True, slots=True)
class Nearest:
    """Of each query the best vectors, best first: ``places`` and ``scores``; ``engine`` ran the products."""

    places: list[NDArray[np.int64]]
    scores: list[NDArray[np.float64]]
    engine: str


def nearest(vectors: Vectors, queries: Vectors, k: int, *, gpu: bool = False, adapter: str | None = None) -> Nearest:
    """The best ``k`` of ``vectors`` (n, d) for each of ``queries`` (q, d), all of them finite and of length 1 at most.

    Where ``k`` is larger than n, all n. ``adapter`` is part of the GPU's name; errors as in :mod:`shaders.runtime`.
    """
    if gpu and len(vectors) and len(queries):
        found = runtime(adapter)
        return nearest_on(GpuVectors(vectors, found), vectors, queries, k)
    return _exact(vectors, queries, k, _cpu_candidates(vectors, queries, k), CPU)


def nearest_on(resident: GpuVectors, vectors: Vectors, queries: Vectors, k: int) -> Nearest:
    """As :func:`nearest`, with ``vectors`` on a GPU already."""
    name, keep = resident.runtime.name, k + _MARGIN
    if keep > MAX_KEPT:
        return _exact(vectors, queries, k, _cpu_candidates(vectors, queries, k), CPU)
    scores, places = resident.candidates(queries, keep)
    if len(vectors) <= keep:
        return _exact(vectors, queries, k, list(places), name)
    near = scores >= scores[:, k - 1 : k] - _slack(vectors)
    candidates = [found[wanted] for found, wanted in zip(places, near, strict=True)]
    # Where the last of them is as good as the k-th within the error, there may be more: look at all vectors.
    again = np.flatnonzero(near[:, -1])
    for query, rows in zip(again, _cpu_candidates(vectors, queries[again], k), strict=True):
        candidates[query] = rows
    return _exact(vectors, queries, k, candidates, name)


def _slack(vectors: Vectors) -> np.float32:
    """Twice what a float32 sum of products of vectors of length 1 is off at most, in whatever order it is summed."""
    return np.float32((vectors.shape[1] + 1) * 2.0**-23)


def _cpu_candidates(vectors: Vectors, queries: Vectors, k: int) -> list[NDArray[np.int64]]:
    """Places that can be among the best ``k`` of each query, block by block: most scores are read once and dropped."""
    count, asked = len(vectors), len(queries)
    k = min(k, count)
    if not k or not asked:
        return [np.zeros(0, np.int64)] * asked
    block, slack = max(k, _BLOCK_SCORES // asked), _slack(vectors)
    best = np.full((asked, k), -np.inf, np.float32)
    least = np.full((asked, 1), -np.inf, np.float32)
    owners: list[NDArray[np.int64]] = []
    rows: list[NDArray[np.int64]] = []
    scores: list[NDArray[np.float32]] = []
    for start in range(0, count, block):
        products = queries @ vectors[start : start + block].T
        if not start:  # the first scores set a bar that few of the others pass
            least = np.partition(products[:, : max(k, _FIRST)], -k, axis=1)[:, -k:][:, :1] - slack
        owner, row = np.divmod(np.flatnonzero(products >= least), products.shape[1])
        found = products[owner, row]
        owners.append(owner)
        rows.append(row + start)
        scores.append(found)
        if len(owner):
            within = np.arange(len(owner)) - np.searchsorted(owner, owner)
            wide = np.full((asked, k + int(within.max()) + 1), -np.inf, np.float32)
            wide[:, :k] = best
            wide[owner, k + within] = found
            best = np.partition(wide, -k, axis=1)[:, -k:]
            least = best.min(axis=1, keepdims=True) - slack
    owner, row = np.concatenate(owners), np.concatenate(rows)
    good = np.concatenate(scores) >= least[owner, 0]
    owner, row = owner[good], row[good]
    order = np.argsort(owner, kind="stable")
    return np.split(row[order], np.searchsorted(owner[order], np.arange(1, asked)))


def _exact(vectors: Vectors, queries: Vectors, k: int, candidates: list[NDArray[np.int64]], engine: str) -> Nearest:
    """The best ``k`` of each query's candidates by the definition."""
    found = Nearest([], [], engine)
    first = 0
    while first < len(queries):
        # Few candidates of many queries are scored in one go, many of one apart: what is held at a time is bounded.
        last, held = first + 1, len(candidates[first])
        while last < len(queries) and (held + len(candidates[last])) * vectors.shape[1] <= _EXACT_NUMBERS:
            held += len(candidates[last])
            last += 1
        rows = np.concatenate(candidates[first:last])
        ends = np.cumsum([len(part) for part in candidates[first:last]])
        owners = np.repeat(np.arange(first, last), np.diff(ends, prepend=0))
        score = cosines(vectors[rows], queries[owners] if last > first + 1 else queries[first])
        order = np.lexsort((rows, -score, owners))
        for begin, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            best = order[begin : min(end, begin + k)]
            found.places.append(rows[best])
            found.scores.append(score[best])
        first = last
    return found


def cosines(vectors: Vectors, query: Vectors) -> NDArray[np.float64]:
    """The score of each of ``vectors`` (n, d), of length 1, for ``query`` (d), or for a query each (n, d)."""
    return (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
