"""The scan on the GPU: uploads texts in symbols, runs ``scan.wgsl`` and says which factors end where.

The CPU engines in ``workers/analysis`` give the same hits for the same plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shaders.alphabet import BREAK, Stream
from shaders.automaton import Automaton, build_automaton
from shaders.catalog import SCAN
from shaders.factors import ScanPlan
from shaders.runtime import Dispatch, Runtime

_HIT_BYTES = 8
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Hits:
    """Factors found in one stream: factor ``factors[k]`` begins at the stream's place ``places[k]``; in no order."""

    factors: NDArray[np.int32]
    places: NDArray[np.int64]


class GpuScanner:
    """The tables of one plan on one device; safe to share between threads."""

    def __init__(self, plan: ScanPlan, runtime: Runtime) -> None:
        self.automaton: Automaton = build_automaton(plan)
        self.runtime = runtime
        self._table = runtime.upload(self.automaton.table)
        # Every symbol may be a hit: a shard is as long as its hits fit one binding, in the worst case.
        self._shard = (runtime.binding_bytes // _HIT_BYTES - self.automaton.overlap - 4) & ~3

    def scan(self, streams: Sequence[Stream]) -> list[Hits]:
        """The hits in each stream, all scanned in one go. Errors as in :mod:`shaders.runtime`."""
        joined, starts = _join([stream.symbols for stream in streams])
        found = [self._scan_shard(joined, begin) for begin in range(0, len(joined), self._shard)]
        places = np.concatenate([part[0] for part in found])
        states = np.concatenate([part[1] for part in found])

        first, lengths = self.automaton.first, self.automaton.lengths
        counts = first[states + 1] - first[states]
        # The k-th factor of each hit's state: a running number minus the number at which its hit begins.
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        factors = self.automaton.ends[np.repeat(first[states], counts) + within]
        begins = np.repeat(places, counts) + 1 - lengths[factors]
        owners = np.searchsorted(starts, begins, side="right") - 1
        order = np.argsort(owners, kind="stable")
        factors, begins, owners = factors[order], begins[order], owners[order]
        cuts = np.searchsorted(owners, np.arange(len(streams) + 1))
        return [
            Hits(factors[cuts[k] : cuts[k + 1]], begins[cuts[k] : cuts[k + 1]] - starts[k]) for k in range(len(streams))
        ]

    def _scan_shard(self, joined: NDArray[np.uint8], begin: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places in ``joined`` where factors end, and states there, from ``begin`` over one shard."""
        runtime, overlap = self.runtime, self.automaton.overlap
        lead = max(0, begin - overlap)
        part = joined[lead : begin + self._shard]
        text = np.zeros(-(-len(part) // 4) * 4, np.uint8)
        text[: len(part)] = part
        chunk = max(_CHUNK, 4 * overlap)
        chunks = -(-(len(part) - (begin - lead)) // chunk)
        job = [len(part), begin - lead, chunk, chunks, overlap, self.automaton.row, runtime.width(SCAN), 0]
        buffers = {
            0: runtime.upload(np.array(job, np.uint32), uniform=True),
            1: runtime.upload(text),
            2: self._table,
            3: runtime.empty(4 * chunks),
        }
        runtime.run([Dispatch(SCAN, "count", buffers, chunks)])
        offsets = np.concatenate([np.zeros(1, np.uint32), np.cumsum(runtime.read(buffers[3], chunks), dtype=np.uint32)])
        total = int(offsets[-1])
        if total == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        buffers[4] = runtime.upload(offsets)
        buffers[5] = runtime.empty(_HIT_BYTES * total)
        runtime.run([Dispatch(SCAN, "scatter", buffers, chunks)])
        pairs = runtime.read(buffers[5], 2 * total).astype(np.int64)
        return pairs[0::2] + lead, pairs[1::2] // self.automaton.row


def _join(parts: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All parts in one array, a break after each, and where each begins."""
    stop = np.array([BREAK], np.uint8)
    joined = np.concatenate([piece for part in parts for piece in (part, stop)] or [stop])
    lengths = np.array([len(part) + 1 for part in parts], np.int64)
    return joined, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])[:-1]
