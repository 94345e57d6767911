"""Chooses the next token of every sequence in a batch from the logits, on the host and vectorised over the batch.

The result for a sequence depends on its own logits, parameters and seed alone, never on who else is in the batch.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.engines.base import Sampling

GREEDY_BELOW: Final = 1e-5
_BLOCK: Final = 512
# Tokens at least this likely relative to the likeliest are tried first, so that few are ever sorted.
_CUTS: Final = (1e-2, 1e-4, 1e-7)


class Chooser:
    """The sampling parameters of one sequence and its stream of random numbers (Philox keyed by the seed)."""

    def __init__(self, sampling: Sampling) -> None:
        self.greedy = sampling.temperature < GREEDY_BELOW or sampling.top_k == 1
        self.temperature = max(sampling.temperature, GREEDY_BELOW)
        self.top_p = sampling.top_p
        self.top_k = sampling.top_k
        self.min_p = sampling.min_p
        self.cuts = self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed % 2**64
        self._random = np.random.Generator(np.random.Philox(key=seed))

    def draw(self) -> float:
        """The next random number in [0, 1)."""
        return float(self._random.random())


def choose(logits: NDArray[np.float32], choosers: Sequence[Chooser]) -> NDArray[np.int64]:
    """One token a row of ``logits`` (rows, vocabulary), by the chooser of the same index; −1 where a row is unusable.

    Excluded tokens are −inf. A row is unusable where its greatest value is NaN or infinite. Overwrites nothing.
    """
    tokens = logits.argmax(axis=1)
    peaks = np.take_along_axis(logits, tokens[:, None], axis=1)[:, 0]
    tokens[~np.isfinite(peaks)] = -1
    rows = [row for row, chooser in enumerate(choosers) if not chooser.greedy and tokens[row] >= 0]
    if rows:
        temperatures = np.array([choosers[row].temperature for row in rows], np.float32)
        weights = np.exp((logits[rows] - peaks[rows, None]) / temperatures[:, None])
        for index, row in enumerate(rows):
            chooser = choosers[row]
            tokens[row] = (_draw_cut if chooser.cuts else _draw_any)(weights[index], chooser)
    return tokens


def _draw_any(weights: NDArray[np.float32], chooser: Chooser) -> int:
    """Draw among all tokens: first a block of 512, then a token in it, so that nothing of the vocabulary is sorted."""
    sums: NDArray[np.float64] = np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK), dtype=np.float64)
    edges = sums.cumsum()
    target = chooser.draw() * float(edges[-1])
    block = min(int(edges.searchsorted(target, side="right")), len(edges) - 1)
    inside = weights[block * _BLOCK : (block + 1) * _BLOCK].astype(np.float64)
    before = float(edges[block - 1]) if block else 0.0
    return block * _BLOCK + _place(inside, target - before)


def _draw_cut(weights: NDArray[np.float32], chooser: Chooser) -> int:
    """Draw among the tokens that top-k, top-p and min-p leave; equal weights rank by token id."""
    total = float(weights.sum(dtype=np.float64))
    candidates, kept = _candidates(weights, chooser, total)
    order = np.lexsort((candidates, -kept))
    candidates, kept = candidates[order], kept[order]
    if chooser.top_k > 0:
        candidates, kept = candidates[: chooser.top_k], kept[: chooser.top_k]
        total = float(kept.sum())
    if chooser.top_p < 1.0:
        # The smallest set whose mass reaches top_p, as a share of what top-k left.
        needed = int(kept.cumsum().searchsorted(chooser.top_p * total, side="left")) + 1
        candidates, kept = candidates[:needed], kept[:needed]
    return int(candidates[_place(kept, chooser.draw() * float(kept.sum()))])


def _candidates(
    weights: NDArray[np.float32], chooser: Chooser, total: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Tokens by id, with their weights: all that the cuts can leave, and as few more as are cheap to find."""
    least = chooser.min_p
    for cut in _CUTS:
        if cut <= least:
            break
        candidates = np.flatnonzero(weights >= cut).astype(np.int64)
        kept = weights[candidates].astype(np.float64)
        if chooser.top_k > 0:
            enough = len(candidates) >= chooser.top_k
        else:
            enough = chooser.top_p < 1.0 and float(kept.sum()) >= chooser.top_p * total
        if enough:
            return candidates, kept
    candidates = np.flatnonzero(weights >= least if least > 0 else weights > 0).astype(np.int64)
    return candidates, weights[candidates].astype(np.float64)


def _place(weights: NDArray[np.float64], target: float) -> int:
    """Where ``target`` falls among the cumulated weights; a token with weight, even where rounding pushes past all."""
    index = min(int(weights.cumsum().searchsorted(target, side="right")), len(weights) - 1)
    while index > 0 and not weights[index] > 0:
        index -= 1
    return index
