"""Nearest vectors on the GPU: keeps a set of vectors there and says which of them are candidates for each query.

The products are float32 and only choose; `workers/analysis/similarity.py` computes what is reported, on every device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.errors import Permanent
from shaders.catalog import SIMILARITY
from shaders.runtime import Dispatch, Runtime

MAX_KEPT: Final = 512
"""Most candidates of a query: half a block, so that each pass of the kernel leaves less than it was given."""
MAX_QUERIES: Final = 64
_TILE = 64
_BLOCK = 1024
_NOWHERE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Search:
    """Dispatches that lack the queries, and the buffer that has the best ``size`` of each when they have run."""

    queries: int
    size: int
    steps: list[Dispatch]
    best: Any


class GpuVectors:
    """``vectors`` (n, d), float32, on one device in shards that its bindings hold; safe to share between threads."""

    def __init__(self, vectors: NDArray[np.float32], runtime: Runtime) -> None:
        """Upload; raises as in :mod:`shaders.runtime`."""
        self.runtime = runtime
        self.count, width = vectors.shape
        self._quads = max(1, -(-width // 4))
        # A shard's vectors and its scores for as many queries as one call takes each fit one binding.
        most = runtime.binding_bytes // max(16 * self._quads, 4 * MAX_QUERIES)
        if most < _TILE:
            raise Permanent(f"the GPU {runtime.name} cannot bind {_TILE} vectors of {width}", code="gpu_limit")
        # The search that was done last, where there is one shard and no call uses it now: making one takes longer than
        # doing it. Of several shards each would keep the memory for its scores.
        self._free: list[_Search] = []
        self._shards: list[tuple[int, int, Any]] = []
        for start in range(0, self.count, most):
            part = self._padded(vectors[start : start + most])
            self._shards.append((start, len(part), runtime.upload(part)))

    def candidates(self, queries: NDArray[np.float32], keep: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and places of the best ``keep`` of each query, (q, kept) each, best first, of equal ones the first.

        ``keep`` is at most :data:`MAX_KEPT`; where there are fewer vectors, all of them are kept.
        """
        size = 1 << max(0, keep - 1).bit_length()
        if size > MAX_KEPT:
            raise ValueError(f"at most {MAX_KEPT} candidates, not {keep}")
        kept = min(keep, self.count)
        scores = np.zeros((len(queries), kept), np.float32)
        places = np.zeros((len(queries), kept), np.int64)
        for first in range(0, len(queries) if kept else 0, MAX_QUERIES):
            some = slice(first, first + MAX_QUERIES)
            asked = self.runtime.upload(self._padded(queries[some]))
            found = [self._best(number, asked, len(queries[some]), size) for number in range(len(self._shards))]
            all_scores = np.concatenate([part[0] for part in found], axis=1)
            all_places = np.concatenate([part[1] for part in found], axis=1)
            order = np.lexsort((all_places, -all_scores))[:, :kept]
            scores[some] = np.take_along_axis(all_scores, order, 1)
            places[some] = np.take_along_axis(all_places, order, 1)
        return scores, places

    def _best(self, number: int, asked: Any, queries: int, size: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best of one shard, ``size`` a query; where it holds fewer, the rest are as far behind as can be."""
        try:
            search = self._free.pop()
        except IndexError:
            search = None
        if search is None or (search.queries, search.size) != (queries, size):
            search = self._search(number, queries, size)
        self.runtime.run([replace(step, buffers={**step.buffers, 2: asked}) for step in search.steps])
        pairs = self.runtime.read(search.best, 2 * queries * size).reshape(queries, size, 2)
        if len(self._shards) == 1:
            self._free[:] = [search]
        found = pairs[:, :, 1].astype(np.int64)
        scores = np.where(found == _NOWHERE, -np.inf, pairs[:, :, 0].view(np.float32)).astype(np.float32)
        return scores, found + self._shards[number][0]

    def _search(self, number: int, queries: int, size: int) -> _Search:
        """The steps of a search in one shard, with the memory that they need."""
        _, rows, vectors = self._shards[number]
        runtime = self.runtime
        columns = -(-rows // _TILE)
        tiles = columns * -(-queries // _TILE)
        scores, peaks = runtime.empty(4 * queries * rows), runtime.empty(4 * queries * columns)
        job = self._job(rows, queries, tiles, 0, 0, size)
        steps = [self._dispatch("score", {0: job, 1: vectors, 3: scores, 7: peaks}, tiles)]

        def sort(entry: str, entries: int, read: dict[int, Any]) -> Any:
            """Add what leaves the best of so many entries a query; answers the buffer that will have them."""
            while True:
                blocks = -(-entries // _BLOCK)
                groups = blocks * queries
                best = runtime.empty(8 * groups * size)
                buffers = {0: self._job(rows, queries, groups, entries, blocks, size), **read, 6: best}
                steps.append(self._dispatch(entry, buffers, groups))
                if blocks == 1:
                    return best
                entry, entries, read = "go_on", blocks * size, {5: best}

        if columns > size:
            found = sort("begin", columns, {4: peaks})
            return _Search(queries, size, steps, sort("within", size * _TILE, {4: scores, 5: found}))
        return _Search(queries, size, steps, sort("begin", rows, {4: scores}))

    def _job(self, rows: int, queries: int, groups: int, entries: int, blocks: int, size: int) -> Any:
        values = [rows, self._quads, queries, groups, entries, blocks, size, 0]
        return self.runtime.upload(np.array(values, np.uint32), uniform=True)

    def _dispatch(self, entry: str, buffers: dict[int, Any], groups: int) -> Dispatch:
        return Dispatch(SIMILARITY, entry, buffers, groups * SIMILARITY.workgroup)

    def _padded(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rows, each filled up with zeros to whole quads."""
        width = 4 * self._quads
        if rows.shape[1] == width:
            return np.ascontiguousarray(rows, np.float32)
        padded = np.zeros((len(rows), width), np.float32)
        padded[:, : rows.shape[1]] = rows
        return padded
