"""First logits of the clause heads: each sentence by its words, by its vector, and by both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shaders.heads import SCALE, fixed, multiply
from shaders.runtime import Runtime
from workers.analysis.clause_heads.weights import Floats, Weights
from workers.analysis.clause_heads.words import runs
from workers.analysis.stretches import Check, unchecked, watched


@dataclass(frozen=True, eq=False)
class First:
    """Logits (n, h) of the sentences of a document: ``lexical`` by words, ``dense`` by vectors, ``both`` blended."""

    lexical: Floats
    dense: Floats
    both: Floats

    @classmethod
    def of(cls, lexical: Floats, dense: Floats, blend: Floats) -> First:
        """With ``blend`` (h, 3) as in :class:`~workers.analysis.clause_heads.weights.Weights`."""
        both = lexical * blend[:, 0] + dense * blend[:, 1] + blend[:, 2]
        return cls(lexical, dense, both.astype(np.float32))


def first_logits(
    weights: Weights,
    texts: Sequence[str],
    vectors: Floats,
    runtime: Runtime | None = None,
    check: Check = unchecked,
) -> First:
    """Of ``texts`` with their ``vectors`` (n, d) of length 1; with ``runtime`` multiplied on its GPU."""
    dense = dense_logits(weights, vectors, runtime)
    return First.of(lexical_logits(weights, texts, check), dense, weights.blend)


def dense_logits(weights: Weights, vectors: Floats, runtime: Runtime | None = None) -> Floats:
    """By the vectors: (n, h)."""
    lengths = np.linalg.norm(weights.dense, axis=0)
    lengths[lengths == 0] = 1
    product = multiply(fixed(vectors), fixed(weights.dense / lengths), runtime)
    return (product * (lengths.astype(np.float64) / SCALE**2) + weights.dense_bias).astype(np.float32)


def lexical_logits(weights: Weights, texts: Sequence[str], check: Check = unchecked) -> Floats:
    """By the words: (n, h); ``check`` is called for each sentence."""
    found = np.tile(weights.lexical_bias, (len(texts), 1))
    for row, text in enumerate(watched(texts, check)):
        places, values = word_values(weights.places, weights.rarity, text)
        if len(places):
            found[row] += values @ weights.lexical[places]
    return found


def word_values(places: dict[str, int], rarity: Floats, text: str) -> tuple[list[int], Floats]:
    """Places in the vocabulary of the runs of ``text``, and their values: (1 + ln count) × rarity, of length 1."""
    counts = Counter(place for run in runs(text) if (place := places.get(run)) is not None)
    found = list(counts)
    values = (1 + np.log(np.array([counts[place] for place in found], np.float32))) * rarity[found]
    length = float(np.linalg.norm(values))
    return found, values / length if length else values
