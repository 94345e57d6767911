"""The three stages of the clause heads: sentences alone, sentences among their neighbours, documents."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workers.analysis.clause_heads.context import FAR, second_logits, sides, signs
from workers.analysis.clause_heads.logits import first_logits, word_values
from workers.analysis.clause_heads.training.examples import HEADS, Contract, Flags
from workers.analysis.clause_heads.training.fit import fit_heads, fit_one
from workers.analysis.clause_heads.weights import SIDES, SIGNS, Floats, Weights
from workers.analysis.clause_heads.words import runs

_sparse: Any = importlib.import_module("scipy.sparse")

VOCABULARY: Final = 20_000
LEAST_SENTENCES: Final = 5
# Vectors have length 1, so that their numbers are small beside those of words.
VECTOR_SCALE: Final = 4.0
LEXICAL_PENALTY: Final = 0.1
DENSE_PENALTY: Final = 12.0
CONTEXT_PENALTY: Final = 3.0
PRESENCE_PENALTY: Final = 5.0
ROUNDS: Final = 130


def train_first(contracts: Sequence[Contract], vectors: Sequence[Floats], probe: Floats) -> Weights:
    """Weights whose first stage is trained; the others are zero."""
    labels = np.concatenate([contract.holds for contract in contracts])
    vocabulary, rarity = _vocabulary(contracts, labels)
    words = _words(contracts, {run: place for place, run in enumerate(vocabulary)}, rarity)
    points = np.concatenate(list(vectors)).astype(np.float32)
    mean = points.mean(axis=0)
    lexical, dense, bias = fit_heads(
        words, VECTOR_SCALE * (points - mean), labels, lexical=LEXICAL_PENALTY, dense=DENSE_PENALTY, rounds=ROUNDS
    )
    dense = VECTOR_SCALE * dense
    nothing = np.zeros((len(HEADS), SIDES + 1), np.float32), np.zeros((len(HEADS), SIGNS + 1), np.float32)
    weights = Weights(HEADS, vocabulary, rarity, lexical, dense, bias - mean @ dense, *nothing, probe)
    # What is measured and built on is what will be shipped, rounding included.
    return Weights.from_npz(weights.to_npz())


def first_of(weights: Weights, contracts: Sequence[Contract], vectors: Sequence[Floats]) -> list[Floats]:
    """First logits of each contract."""
    return [
        first_logits(weights, contract.texts, points.astype(np.float32))
        for contract, points in zip(contracts, vectors, strict=True)
    ]


def train_context(contracts: Sequence[Contract], first: Sequence[Floats]) -> Floats:
    """Weights of the second stage, from ``first`` logits of models that had not seen the contract."""
    parts = [sides(logits, contract.found, contract.texts) for contract, logits in zip(contracts, first, strict=True)]
    columns, labels = np.concatenate(parts), np.concatenate([contract.equals for contract in contracts])
    logits = np.concatenate(list(first))
    context = np.zeros((len(HEADS), SIDES + 1), np.float32)
    for head in range(len(HEADS)):
        near = (logits[:, head] > FAR) | labels[:, head]
        context[head] = fit_one(columns[near, head], labels[near, head], penalty=CONTEXT_PENALTY)
    return context


def second_of(context: Floats, contracts: Sequence[Contract], first: Sequence[Floats]) -> list[Floats]:
    """Second logits of each contract."""
    return [
        second_logits(context, logits, contract.found, contract.texts)
        for contract, logits in zip(contracts, first, strict=True)
    ]


def train_presence(contracts: Sequence[Contract], second: Sequence[Floats]) -> Floats:
    """Weights of the third stage."""
    columns = np.stack([signs(logits, contract.found) for contract, logits in zip(contracts, second, strict=True)])
    answers = np.stack([contract.answers for contract in contracts])
    return np.stack(
        [fit_one(columns[:, head], answers[:, head], penalty=PRESENCE_PENALTY) for head in range(len(HEADS))]
    )


def _vocabulary(contracts: Sequence[Contract], labels: Flags) -> tuple[tuple[str, ...], Floats]:
    """The runs of words that stand out most in the sentences of some head, and their rarity among all sentences."""
    sentences: Counter[str] = Counter()
    texts = [text for contract in contracts for text in contract.texts]
    for text in texts:
        sentences.update(set(runs(text)))
    names = sorted(run for run, count in sentences.items() if count >= LEAST_SENTENCES)
    common = {run: place for place, run in enumerate(names)}
    total = np.array([sentences[run] for run in names], np.float64)
    here = np.zeros((len(common), labels.shape[1]), np.float64)
    for row in np.flatnonzero(labels.any(axis=1)):
        places = [common[run] for run in set(runs(texts[row])) if run in common]
        here[places] += labels[row]
    share = labels.sum(axis=0) / len(texts)
    expected = total[:, None] * share
    standing_out: NDArray[np.float64] = np.maximum(here - expected, 0) / np.sqrt(expected * (1 - share) + 0.5)
    best = standing_out.max(axis=1)
    chosen: list[int] = np.sort(np.argsort(-best, kind="stable")[:VOCABULARY]).tolist()
    rarity = np.log((1 + len(texts)) / (1 + total[chosen])) + 1
    return tuple(names[place] for place in chosen), rarity.astype(np.float32)


def _words(contracts: Sequence[Contract], places: dict[str, int], rarity: Floats) -> Any:
    columns: list[int] = []
    values: list[Floats] = []
    ends = [0]
    for contract in contracts:
        for text in contract.texts:
            found, weights = word_values(places, rarity, text)
            columns.extend(found)
            values.append(weights)
            ends.append(len(columns))
    shape = (len(ends) - 1, len(rarity))
    return _sparse.csr_matrix((np.concatenate(values), np.array(columns), np.array(ends)), shape=shape)
