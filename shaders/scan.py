"""The scan on the GPU: runs ``scan.wgsl`` over a corpus and says which factors end where.

The CPU engines in ``workers/analysis`` give the same hits for the same plan; ``tally.py`` counts without any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shaders.automaton import build_automata
from shaders.catalog import MAX_TURNS, SCAN
from shaders.corpus import HIT_BYTES, LEAD, Corpus, Shard, Uploader
from shaders.factors import ScanPlan
from shaders.runtime import Dispatch, Runtime
from shaders.words import Automaton

_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Hits:
    """Factors found in one text: factor ``factors[k]`` begins at place ``places[k]`` of its symbols; in no order."""

    factors: NDArray[np.int32]
    places: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Loaded:
    """An automaton whose table is on the device."""

    table: Any
    row: int
    overlap: int
    first: NDArray[np.int64]
    ends: NDArray[np.int32]

    @staticmethod
    def upload(automaton: Automaton, runtime: Runtime) -> Loaded:
        """Upload; the host keeps no copy of the table."""
        table = runtime.upload(automaton.table)
        return Loaded(table, automaton.row, automaton.overlap, automaton.first, automaton.ends)


@dataclass(frozen=True, slots=True)
class Flight:
    """Work that the device was given and whose results are not read yet."""

    corpus: Corpus
    counted: list[tuple[Loaded, dict[int, Any], int]]


def chunk_for(overlap: int, turns: int = 1) -> int:
    """Symbols that a thread owns: as many as make ``overlap`` cheap, ``turns`` of loops for each within the limit."""
    chunk = min(max(_CHUNK, 4 * overlap), MAX_TURNS // turns - overlap - 32)
    if chunk < 1 or overlap > LEAD:
        raise AssertionError(f"a thread cannot walk {overlap} symbols of {turns} turns within {MAX_TURNS}")
    return chunk


class GpuScanner:
    """The tables of one plan on one device; safe to share between threads."""

    def __init__(self, plan: ScanPlan, runtime: Runtime, numbers: Sequence[int] | None = None) -> None:
        """Upload the tables of all factors or of those with these ``numbers``."""
        self.runtime = runtime
        self._lengths = plan.lengths
        self.uploader = Uploader(plan.alphabet, runtime)
        self._automata = [Loaded.upload(automaton, runtime) for automaton in build_automata(plan, numbers)]

    def scan(self, texts: Sequence[bytes]) -> list[Hits]:
        """The hits in each text, UTF-8, all scanned in one go. Errors as in :mod:`shaders.runtime`."""
        return self.finish(self.begin(self.uploader.corpus(texts)))

    def begin(self, corpus: Corpus) -> Flight:
        """Give the device the counting of hits; meanwhile the host is free."""
        return Flight(
            corpus, [self._count(automaton, shard) for shard in corpus.shards for automaton in self._automata]
        )

    def finish(self, flight: Flight) -> list[Hits]:
        """The hits in each text of the corpus."""
        found = [self._scatter(*counted) for counted in flight.counted]
        factors = np.concatenate([np.zeros(0, np.int32), *(part[0] for part in found)])
        begins = np.concatenate([np.zeros(0, np.int64), *(part[1] for part in found)])
        starts = flight.corpus.starts
        owners = np.searchsorted(starts, begins, side="right") - 1
        order = np.argsort(owners, kind="stable")
        factors, begins, owners = factors[order], begins[order], owners[order]
        cuts = np.searchsorted(owners, np.arange(len(starts) + 1))
        return [
            Hits(factors[cuts[k] : cuts[k + 1]], begins[cuts[k] : cuts[k + 1]] - start)
            for k, start in enumerate(starts.tolist())
        ]

    def _count(self, automaton: Loaded, shard: Shard) -> tuple[Loaded, dict[int, Any], int]:
        runtime = self.runtime
        chunk = chunk_for(automaton.overlap)
        chunks = -(-(shard.end - shard.begin) // chunk)
        job = [shard.end, shard.begin, chunk, chunks, automaton.overlap, automaton.row, runtime.width(SCAN), 0]
        buffers = {
            0: runtime.upload(np.array(job, np.uint32), uniform=True),
            1: shard.text,
            2: automaton.table,
            3: runtime.empty(4 * chunks),
        }
        runtime.run([Dispatch(SCAN, "count", buffers, chunks)])
        return automaton, buffers, chunks

    def _scatter(
        self, automaton: Loaded, buffers: dict[int, Any], chunks: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Factors that end in a shard and their begins in the corpus."""
        runtime = self.runtime
        offsets = np.concatenate([np.zeros(1, np.uint32), np.cumsum(runtime.read(buffers[3], chunks), dtype=np.uint32)])
        total = int(offsets[-1])
        if total == 0:
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        into = {4: runtime.upload(offsets), 5: runtime.empty(HIT_BYTES * total)}
        runtime.run([Dispatch(SCAN, "scatter", buffers | into, chunks)])
        pairs = runtime.read(into[5], 2 * total).astype(np.int64)
        places, states = pairs[0::2], pairs[1::2] // automaton.row
        first = automaton.first
        counts = first[states + 1] - first[states]
        # The k-th factor of each hit's state: a running number minus the number at which its hit begins.
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        factors = automaton.ends[np.repeat(first[states], counts) + within]
        return factors, np.repeat(places, counts) + 1 - self._lengths[factors]
