"""Second logits of the clause heads: each sentence among its neighbours and in its document, and the document itself.

A heading speaks for what follows, an item of a list for its neighbours, and a weak sign counts more where the document
has no stronger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.analysis.clause_heads.logits import First
from workers.analysis.clause_heads.weights import Floats

PRESENT: Final = 0.4
"""Probability from which a document counts as holding a clause."""
FAR: Final = -6.0
"""First logit from which on a sentence is looked at again; those below are no clause, whatever stands beside them."""
_LEAST, _MOST = -8.0, 8.0
_NONE, _LOWEST = -9.0, -12.0
_MIDDLE_LENGTH = 4.9  # ln of the characters of a middling sentence
_MIDDLE_COUNT = 5.3  # ln of the sentences of a middling contract


def joins(texts: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each sentence goes on in the next: a list's item, or one that the next begins in lower case after."""
    open_, small = _forms(texts)
    found = open_ | np.append(small[1:], False)[: len(texts)]
    found[-1:] = False
    return found


def _forms(texts: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each sentence ends as an item of a list does, and whether it begins in lower case."""
    ends = np.array([text[-1:] in ";:," for text in texts], np.bool_)
    return ends, np.array([text[:1].islower() for text in texts], np.bool_)


def sides(first: Floats, found: Floats, texts: Sequence[str]) -> Floats:
    """What the second logits look at, (n, h, SIDES): ``first`` logits (n, h) and 1 where the scan ``found`` a term."""
    s = np.clip(first, _LEAST, _MOST)
    before, before_that, after, after_that = (_shifted(s, by) for by in (1, 2, -1, -2))
    most = np.broadcast_to(s.max(axis=0), s.shape)
    lengths = np.log1p(np.array([[len(text)] for text in texts], np.float32)) - _MIDDLE_LENGTH
    lengths = np.broadcast_to(lengths, s.shape)
    goes_on = joins(texts)[:, None].astype(np.float32)
    ends, begins = (form[:, None].astype(np.float32) for form in _forms(texts))
    columns = [
        s, np.maximum(s, -2), before, np.maximum(before, -2), before_that, after, np.maximum(after, -2), after_that,
        most, s - most, lengths, s * lengths * 0.3, found, _shifted(found, 1, 0.0),
        np.broadcast_to(ends, s.shape), np.broadcast_to(begins, s.shape),
        _shifted(goes_on, 1, 0.0) * (np.maximum(before, -4) + 4) * 0.5, goes_on * (np.maximum(after, -4) + 4) * 0.5,
    ]  # fmt: skip
    return np.stack(columns, axis=2).astype(np.float32)


def second_logits(context: Floats, first: Floats, found: Floats, texts: Sequence[str]) -> Floats:
    """Logits (n, h) that each sentence, at least for the most part, is a clause of the head's kind.

    ``context`` as in :class:`~workers.analysis.clause_heads.weights.Weights`.
    """
    if not len(texts):
        return first
    second = np.einsum("nhk,hk->nh", sides(first, found, texts), context[:, :-1]) + context[:, -1]
    return np.where(first > FAR, second, _NONE).astype(np.float32)


def signs(first: First, second: Floats, found: Floats) -> Floats:
    """What tells that a document holds a clause, (h, SIGNS): its best sentences, all together, the scan."""
    s = np.clip(second, _NONE, -_NONE)
    none = np.prod(1 - 1 / (1 + np.exp(-s.astype(np.float64))), axis=0)
    hits = found.sum(axis=0)
    count = np.full(s.shape[1], np.log(max(1, len(s))) - _MIDDLE_COUNT)
    best = [*_best(s, 3), *_best(first.both, 2), *_best(first.lexical, 1), *_best(first.dense, 1)]
    columns = [*best, np.log(1e-3 + 1 - none), np.minimum(hits, 3) / 3, hits > 0, count]
    return np.stack(columns, axis=1).astype(np.float32)


def _best(logits: Floats, count: int) -> Floats:
    """The highest of each head, (count, h)."""
    nothing = np.full((count, logits.shape[1]), _NONE, np.float32)
    return np.clip(-np.sort(-np.concatenate([logits, nothing]), axis=0)[:count], _LOWEST, -_NONE)


def presence(weights: Floats, first: First, second: Floats, found: Floats) -> Floats:
    """Probability (h) that the document holds a clause of each head's kind; ``weights`` are those of presence."""
    logits = (signs(first, second, found) * weights[:, :-1]).sum(axis=1) + weights[:, -1]
    return probability(logits)


def probability(logits: Floats) -> Floats:
    """Of logits of any shape."""
    return (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.float32)


def _shifted(values: Floats, by: int, outside: float = _LEAST) -> Floats:
    """Row ``i`` holds what row ``i - by`` held."""
    moved = np.full_like(values, outside)
    if abs(by) < len(values):
        if by > 0:
            moved[by:] = values[:-by]
        else:
            moved[:by] = values[-by:]
    return moved
