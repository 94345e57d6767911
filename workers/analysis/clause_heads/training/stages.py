"""The stages of the clause heads that need no GPU: words, words with vectors, neighbours, documents."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workers.analysis.clause_heads.context import FAR, second_logits, sides, signs
from workers.analysis.clause_heads.logits import First, word_values
from workers.analysis.clause_heads.training.examples import HEADS, Contract, Flags
from workers.analysis.clause_heads.training.fit import fit_alike, fit_heads, fit_one
from workers.analysis.clause_heads.weights import SIDES, SIGNS, Floats, Weights
from workers.analysis.clause_heads.words import runs

_sparse: Any = importlib.import_module("scipy.sparse")

VOCABULARY: Final = 20_000
LEAST_SENTENCES: Final = 5
LEXICAL_PENALTY: Final = 0.1
BLEND_PENALTY: Final = 3.0
ALIKE_PENALTY: Final = 30.0
ROUNDS: Final = 130


@dataclass(frozen=True, eq=False)
class Words:
    """Logits by words: ``vocabulary`` (v), ``rarity`` (v), ``weights`` (v, h), ``bias`` (h)."""

    vocabulary: tuple[str, ...]
    rarity: Floats
    weights: Floats
    bias: Floats


def train_words(contracts: Sequence[Contract]) -> Words:
    """Of sentences that hold a clause."""
    labels = np.concatenate([contract.holds for contract in contracts])
    vocabulary, rarity = _vocabulary(contracts, labels)
    columns = _words(contracts, {run: place for place, run in enumerate(vocabulary)}, rarity)
    weights, bias = fit_heads(columns, labels, penalty=LEXICAL_PENALTY, rounds=ROUNDS)
    return Words(vocabulary, rarity, weights, bias)


def whole(words: Words, dense: Floats, dense_bias: Floats, probe: Floats) -> Weights:
    """Weights without what comes after words and vectors, rounded as they are shipped."""
    rest = (np.zeros((len(HEADS), columns), np.float32) for columns in (3, SIDES + 1, SIGNS + 1))
    blend, context, presence = rest
    weights = Weights(
        HEADS, words.vocabulary, words.rarity, words.weights, words.bias, dense, dense_bias, blend, context, presence,
        probe,
    )  # fmt: skip
    return Weights.from_npz(weights.to_npz())


def train_blend(contracts: Sequence[Contract], lexical: Sequence[Floats], dense: Sequence[Floats]) -> Floats:
    """How logits by words and by vectors, of models that had not seen the contract, count together: (h, 3)."""
    labels = np.concatenate([contract.holds for contract in contracts])
    columns = np.stack([np.concatenate(list(lexical)), np.concatenate(list(dense))], axis=2)
    found = np.zeros((len(HEADS), 3), np.float32)
    for head in range(len(HEADS)):
        near = (columns[:, head].max(axis=1) > FAR) | labels[:, head]
        found[head] = fit_one(columns[near, head], labels[near, head], penalty=BLEND_PENALTY)
    return found


def train_context(contracts: Sequence[Contract], first: Sequence[First]) -> Floats:
    """Weights of the second stage, from ``first`` logits of models that had not seen the contract."""
    parts = [sides(seen.both, contract.found, contract.texts) for contract, seen in zip(contracts, first, strict=True)]
    columns, labels = np.concatenate(parts), np.concatenate([contract.equals for contract in contracts])
    logits = np.concatenate([seen.both for seen in first])
    near = (logits > FAR) | labels
    return fit_alike(
        [columns[near[:, head], head] for head in range(len(HEADS))],
        [labels[near[:, head], head] for head in range(len(HEADS))],
        penalty=ALIKE_PENALTY,
    )


def second_of(context: Floats, contracts: Sequence[Contract], first: Sequence[First]) -> list[Floats]:
    """Second logits of each contract."""
    return [
        second_logits(context, seen.both, contract.found, contract.texts)
        for contract, seen in zip(contracts, first, strict=True)
    ]


def train_presence(contracts: Sequence[Contract], first: Sequence[First], second: Sequence[Floats]) -> Floats:
    """Weights of the third stage."""
    parts = zip(contracts, first, second, strict=True)
    columns = np.stack([signs(seen, logits, contract.found) for contract, seen, logits in parts])
    answers = np.stack([contract.answers for contract in contracts])
    heads = range(len(HEADS))
    return fit_alike([columns[:, head] for head in heads], [answers[:, head] for head in heads], penalty=ALIKE_PENALTY)


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
