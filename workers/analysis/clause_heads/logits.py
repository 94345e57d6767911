"""First logits of the clause heads: each sentence by its own words and its own vector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from shaders.heads import SCALE, fixed, multiply
from shaders.runtime import Runtime
from workers.analysis.clause_heads.weights import Floats, Weights
from workers.analysis.clause_heads.words import runs


def first_logits(weights: Weights, texts: Sequence[str], vectors: Floats, runtime: Runtime | None = None) -> Floats:
    """Logits (n, h) of ``texts`` with their ``vectors`` (n, d) of length 1; with ``runtime`` multiplied on its GPU."""
    lengths = np.linalg.norm(weights.dense, axis=0)
    lengths[lengths == 0] = 1
    product = multiply(fixed(vectors), fixed(weights.dense / lengths), runtime)
    dense = product * (lengths.astype(np.float64) / SCALE**2)
    return (lexical_logits(weights, texts) + dense + weights.bias).astype(np.float32)


def lexical_logits(weights: Weights, texts: Sequence[str]) -> Floats:
    """The part of the words: (n, h)."""
    found = np.zeros((len(texts), len(weights.heads)), np.float32)
    for row, text in enumerate(texts):
        places, values = word_values(weights.places, weights.rarity, text)
        if len(places):
            found[row] = values @ weights.lexical[places]
    return found


def word_values(places: dict[str, int], rarity: Floats, text: str) -> tuple[list[int], Floats]:
    """Places in the vocabulary of the runs of ``text``, and their values: (1 + ln count) × rarity, of length 1."""
    counts = Counter(place for run in runs(text) if (place := places.get(run)) is not None)
    found = list(counts)
    values = (1 + np.log(np.array([counts[place] for place in found], np.float32))) * rarity[found]
    length = float(np.linalg.norm(values))
    return found, values / length if length else values
