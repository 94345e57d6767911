"""Clauses out of scored sentences: sentences that go on in each other are one clause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from workers.analysis.clause_heads.context import joins
from workers.analysis.clause_heads.weights import Floats
from workers.analysis.stretches import Check, unchecked, watched

SURE: Final = 0.25
LIKELY: Final = 0.1
"""A clause holds at least one sentence of probability ``SURE``; the sentences it goes on in are at least ``LIKELY``."""


@dataclass(frozen=True, slots=True)
class ScoredClause:
    """Sentences ``first`` to ``last`` are a clause of head number ``head``, with the probability of the likeliest."""

    head: int
    first: int
    last: int
    score: float


def find_spans(probabilities: Floats, texts: Sequence[str], check: Check = unchecked) -> list[ScoredClause]:
    """The clauses among sentences with ``probabilities`` (n, h), by head and place; ``check`` is called for a head."""
    goes_on = joins(texts)
    found: list[ScoredClause] = []
    for head in watched(range(probabilities.shape[1]), check):
        column = probabilities[:, head]
        group: list[int] = []
        for row in [*np.flatnonzero(column >= LIKELY).tolist(), -1]:
            if group and row == group[-1] + 1 and goes_on[group[-1]]:
                group.append(row)
                continue
            if group and (score := float(column[group].max())) >= SURE:
                found.append(ScoredClause(head, group[0], group[-1], score))
            group = [row]
    return found
