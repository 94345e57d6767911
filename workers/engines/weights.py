"""What a row of logits weighs under a temperature, and the drawing among it that sorts nothing, for the sampler.

A vocabulary may have 262,144 tokens and a step 64 rows, so each pass over a row costs: here are as few as exact draws
need, in pieces that stay in a core's caches, over memory that each thread uses again.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]

_BLOCK: Final = 512
# Small enough for the near caches, large enough that calling numpy costs little.
_CHUNK: Final = 64 * _BLOCK
_LEAST: Final = np.finfo(np.float32).min

_memory = threading.local()


def _scratch(size: int) -> Row:
    """Memory of this thread, at least ``size`` values."""
    held: Row | None = getattr(_memory, "values", None)
    if held is None or len(held) < size:
        held = _memory.values = np.empty(size, np.float32)
    return held[:size]


class Weights:
    """exp((logit − peak) / temperature) for each token of a row; valid until this thread weighs another row.

    Tokens rank by weight, equal ones by their id. Sums are exact to about a millionth.
    """

    def __init__(self, row: Row, peak: float, temperature: float) -> None:
        """``peak`` is the greatest logit, which is finite and weighs 1; excluded tokens are −inf and weigh 0."""
        size = len(row)
        self._blocks = _scratch(-(-size // _BLOCK) * _BLOCK).reshape(-1, _BLOCK)
        self._values = self._blocks.reshape(-1)
        self._values[size:] = 0
        for start in range(0, size, _CHUNK):
            logits = row[start : start + _CHUNK]
            part = self._values[start : start + len(logits)]
            np.subtract(logits, np.float32(peak), out=part)
            if temperature != 1.0:
                np.multiply(part, np.float32(1.0 / temperature), out=part)
            np.exp(part, out=part)
        self._edges = self._sum()
        self.total = float(self._edges[-1])

    def of(self, token: int) -> float:
        """The weight of ``token``."""
        return float(self._values[token])

    def draw(self, random: float) -> int:
        """The token at ``random`` (0 to 1) of the mass: a block first, then a token in it."""
        target = random * float(self._edges[-1])
        block = min(int(self._edges.searchsorted(target, side="right")), len(self._edges) - 1)
        while block > 0 and not self._blocks[block].any():
            block -= 1
        before = float(self._edges[block - 1]) if block else 0.0
        return block * _BLOCK + place(self._blocks[block].astype(np.float64), target - before)

    def ahead(self, token: int) -> float:
        """The mass of all tokens that rank before ``token``."""
        weight = self._values[token]
        spare = np.empty(_CHUNK, np.float32)
        mass, greater = 0.0, 0
        for start in range(0, len(self._values), _CHUNK):
            part = self._values[start : start + _CHUNK]
            more = int(np.count_nonzero(part > weight))
            if more:
                # The sum of what exceeds the weight, so that nothing large is added only to be taken off again.
                over = spare[: len(part)]
                np.subtract(part, weight, out=over)
                np.maximum(over, 0, out=over)
                mass += float(over.sum())
                greater += more
        equal = int(np.count_nonzero(self._values[:token] == weight))
        return mass + float(weight) * (greater + equal)

    def keep_ahead(self, token: int) -> None:
        """Drop ``token`` and all that rank behind it: they are drawn no more."""
        weight = self._values[token]
        first, rest = self._values[:token], self._values[token:]
        first *= first >= weight
        rest *= rest > weight
        self._edges = self._sum()

    def _sum(self) -> NDArray[np.float64]:
        return np.einsum("ij->i", self._blocks).cumsum(dtype=np.float64)


def place(weights: NDArray[np.float64], target: float) -> int:
    """Where ``target`` falls among the cumulated weights; a token with weight, even where rounding pushes past all."""
    index = min(int(weights.cumsum().searchsorted(target, side="right")), len(weights) - 1)
    while index > 0 and not weights[index] > 0:
        index -= 1
    return index


def peaks(row: Row) -> Row:
    """The greatest logit of each block of a row, NaN where it has one: the only pass that :func:`likeliest` needs."""
    blocks = len(row) // _BLOCK
    found = np.empty(-(-len(row) // _BLOCK), np.float32)
    row[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1, out=found[:blocks])
    if blocks < len(found):
        found[blocks] = row[blocks * _BLOCK :].max()
    return found


def likeliest(row: Row, count: int, greatest: Row | None = None) -> NDArray[np.int64]:
    """The ``count`` tokens of the greatest logits, the greatest first, equal ones by id; fewer where more are −inf.

    ``greatest`` are the row's :func:`peaks`, if they are known; none may be NaN.
    """
    greatest = peaks(row) if greatest is None else greatest
    if count * 4 <= len(greatest):
        # So many tokens at least are as great as the last of so many blocks, and all of them stand in such blocks.
        least = max(np.partition(greatest, len(greatest) - count)[len(greatest) - count], _LEAST)
        whole = len(row) // _BLOCK
        near = np.flatnonzero(greatest[:whole] >= least)
        found = np.flatnonzero(row[: whole * _BLOCK].reshape(whole, _BLOCK).take(near, axis=0) >= least)
        tokens = near[found // _BLOCK] * _BLOCK + found % _BLOCK
        if whole < len(greatest):
            rest = np.flatnonzero(row[whole * _BLOCK :] >= least) + whole * _BLOCK
            tokens = np.concatenate([tokens, rest])
    else:
        least = np.partition(row, len(row) - count)[len(row) - count] if count < len(row) else _LEAST
        tokens = np.flatnonzero(row >= max(least, _LEAST))
    return tokens[np.argsort(-row[tokens], kind="stable")[:count]]
