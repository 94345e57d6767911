"""Counts of literals by document and category on the GPU: only the counts come back.

A literal is counted here when its symbols tell it exactly; the others, and patterns, are left to the scan and the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shaders.catalog import MAX_TURNS, TALLY
from shaders.corpus import LEAD, Corpus, Shard
from shaders.factors import ScanPlan
from shaders.runtime import Dispatch, Runtime
from shaders.scan import Loaded, chunk_for
from shaders.words import word_automata

_MOST_ENDS = MAX_TURNS // (2 * LEAD) - 1  # each is a turn of a loop


class GpuTally:
    """The words of one plan on one device; safe to share between threads."""

    def __init__(self, plan: ScanPlan, cells: int, runtime: Runtime) -> None:
        """Upload tables of ``cells`` at most; ``counted`` (n,) then says which factors of the plan they hold.

        Too many words that end in one place, as only a playbook made for it has, are not counted here.
        """
        self.runtime = runtime
        self.counted = plan.literals.is_exact.copy()
        self._categories = 1 + max(term.category for term in plan.terms)
        self._letters = np.packbits(plan.literals.letters, bitorder="little").view(np.uint32)
        packed = _packed(plan)
        words = {number: plan.factors[number].word for number in np.flatnonzero(self.counted).tolist()}
        self._tables: list[tuple[Loaded, Any, Any, int]] = []
        for automaton in word_automata(words, plan.alphabet.size, cells):
            most = int(np.diff(automaton.first).max())
            if most > _MOST_ENDS:
                self.counted[automaton.ends] = False
                continue
            first, ends = automaton.first.astype(np.uint32), packed[automaton.ends]
            uploaded = Loaded.upload(automaton, runtime)
            chunk = chunk_for(automaton.overlap, 1 + most)
            self._tables.append((uploaded, runtime.upload(first), runtime.upload(ends), chunk))

    def count(self, corpus: Corpus) -> NDArray[np.int64]:
        """How often the literals stand, (documents, categories). Errors as in :mod:`shaders.runtime`."""
        return self.finish(corpus, self.begin(corpus))

    def begin(self, corpus: Corpus) -> Sequence[Any]:
        """Give the device the work; answers a buffer of counts a shard."""
        buffers: list[Any] = []
        for shard in corpus.shards:  # each submitted alone: a system may take a device that is busy for long for lost
            dispatches, counts = self.dispatches(shard)
            if dispatches:
                self.runtime.run(dispatches)
            buffers.append(counts)
        return buffers

    def finish(self, corpus: Corpus, buffers: Sequence[Any]) -> NDArray[np.int64]:
        """Read the counts."""
        total = np.zeros((len(corpus.starts), self._categories), np.int64)
        for shard, buffer in zip(corpus.shards, buffers, strict=True):
            found = self.runtime.read(buffer, len(shard.starts) * self._categories)
            total[shard.first : shard.first + len(shard.starts)] += found.reshape(-1, self._categories)
        return total

    def dispatches(self, shard: Shard) -> tuple[list[Dispatch], Any]:
        """What counts one shard's own symbols, and the buffer of counts that it adds to."""
        runtime, documents = self.runtime, len(shard.starts)
        starts, counts = runtime.upload(shard.starts), runtime.empty(4 * documents * self._categories)
        dispatches: list[Dispatch] = []
        for loaded, first, ends, chunk in self._tables if documents else []:
            chunks = -(-(shard.end - shard.begin) // chunk)
            job = [shard.end, shard.begin, chunk, chunks, loaded.overlap, loaded.row, runtime.width(TALLY)]
            values = np.array([*job, documents, self._categories, 0, 0, 0, *self._letters], np.uint32)
            buffers = {
                0: runtime.upload(values, uniform=True),
                1: shard.text,
                2: loaded.table,
                3: first,
                4: ends,
                5: starts,
                6: counts,
            }
            dispatches.append(Dispatch(TALLY, "tally", buffers, chunks))
        return dispatches, counts


def _packed(plan: ScanPlan) -> NDArray[np.uint32]:
    """Category, length, and whether a word may go on to the right and to the left, as ``tally.wgsl`` reads them."""
    categories = np.array([plan.terms[factor.term].category for factor in plan.factors], np.uint32)
    alone = plan.literals.right.astype(np.uint32) << 1 | plan.literals.left.astype(np.uint32)
    return (categories << 16 | plan.lengths.astype(np.uint32) << 2 | alone).astype(np.uint32)
