"""Measures of clause finding: spans and presence, by micro and macro F1 and by precision at 80 % recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.analysis.clause_heads.context import probability
from workers.analysis.clause_heads.spans import find_spans
from workers.analysis.clause_heads.training.examples import HEADS, UNIVERSAL, Contract
from workers.analysis.clause_heads.weights import Floats

NARROW = [place for place, head in enumerate(HEADS) if head not in UNIVERSAL]


@dataclass(frozen=True, slots=True)
class Counts:
    """Right, wrong and missed, for each head."""

    right: NDArray[np.int64]
    wrong: NDArray[np.int64]
    missed: NDArray[np.int64]

    def micro(self, heads: Sequence[int]) -> tuple[float, float, float]:
        """Precision, recall and F1 over all cases of these heads."""
        right, wrong, missed = (int(part[list(heads)].sum()) for part in (self.right, self.wrong, self.missed))
        precision, recall = right / max(1, right + wrong), right / max(1, right + missed)
        return precision, recall, 2 * right / max(1, 2 * right + wrong + missed)

    def macro(self, heads: Sequence[int]) -> float:
        """Mean F1 of these heads."""
        return float(np.mean([self.micro([head])[2] for head in heads]))


def presence_counts(contracts: Sequence[Contract], present: NDArray[np.bool_]) -> Counts:
    """``present`` is (contracts, h)."""
    answers = np.stack([contract.answers for contract in contracts])
    return Counts((present & answers).sum(0), (present & ~answers).sum(0), (~present & answers).sum(0))


def span_counts(contracts: Sequence[Contract], second: Sequence[Floats]) -> Counts:
    """Found spans against labels: right where their intersection over union is at least one half, each label once."""
    right, wrong, missed = (np.zeros(len(HEADS), np.int64) for _ in range(3))
    for contract, logits in zip(contracts, second, strict=True):
        left = [list(spans) for spans in contract.gold]
        for clause in find_spans(probability(logits), contract.texts):
            start, end = contract.spans[clause.first][0], contract.spans[clause.last][1]
            match = next((span for span in left[clause.head] if _same(start, end, span)), None)
            if match is None:
                wrong[clause.head] += 1
            else:
                right[clause.head] += 1
                left[clause.head].remove(match)
        missed += [len(spans) for spans in left]
    return Counts(right, wrong, missed)


def precision_at_recall(contracts: Sequence[Contract], probabilities: Floats, recall: float = 0.8) -> float:
    """Best precision of presence over the narrow heads where at least ``recall`` of them is found."""
    answers = np.stack([contract.answers for contract in contracts])[:, NARROW].ravel()
    order = np.argsort(-probabilities[:, NARROW].ravel(), kind="stable")
    right = np.cumsum(answers[order])
    reached = right >= recall * answers.sum()
    return float((right / np.arange(1, len(right) + 1))[reached].max())


def _same(start: int, end: int, span: tuple[int, int]) -> bool:
    shared = min(end, span[1]) - max(start, span[0])
    return shared > 0 and shared / (max(end, span[1]) - min(start, span[0])) >= 0.5
