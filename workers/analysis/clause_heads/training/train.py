"""Trains and measures the clause heads: `python -m workers.analysis.clause_heads.training.train DATA VECTORS`.

DATA is the folder of CUAD's developer part; VECTORS is a folder for the sentences' vectors, made at the first run,
which takes about 25 minutes of two cores. Five folds by contract (seed 0): a contract's first logits come from the model
of the four other folds; second and third stage are measured on the fold that they were not trained on. The figures are
those of the folds, the weights written are trained on all contracts. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import workers.engines  # pyright: ignore[reportUnusedImport]  # noqa: F401 (llama.cpp before numpy)

import numpy as np  # isort: skip
from numpy.typing import NDArray

from workers.analysis.clause_heads.context import PRESENT, presence
from workers.analysis.clause_heads.training import stages
from workers.analysis.clause_heads.training.examples import HEADS, Contract, load_contracts
from workers.analysis.clause_heads.training.measure import (
    NARROW,
    precision_at_recall,
    presence_counts,
    span_counts,
)
from workers.analysis.clause_heads.training.vectors import sentence_vectors
from workers.analysis.clause_heads.weights import Floats

FOLDS, SEED = 5, 0
TARGET = Path(__file__).parents[1] / "weights.npz"


def main() -> int:
    """Print a table by category and one JSON line; write the weights."""
    contracts = load_contracts(Path(sys.argv[1]))
    vectors, probe = sentence_vectors(contracts, Path(sys.argv[2]))
    fold = np.random.default_rng(SEED).permutation(len(contracts)) % FOLDS
    first: list[Floats] = [np.zeros(0, np.float32)] * len(contracts)
    for number, (seen, unseen) in enumerate(_folds(fold), 1):
        weights = stages.train_first([contracts[i] for i in seen], [vectors[i] for i in seen], probe)
        logits = stages.first_of(weights, [contracts[i] for i in unseen], [vectors[i] for i in unseen])
        for place, found in zip(unseen, logits, strict=True):
            first[place] = found
        print(f"fold {number} of {FOLDS}", file=sys.stderr, flush=True)
    figures = measured(contracts, first, fold)
    weights = stages.train_first(contracts, vectors, probe)
    context = stages.train_context(contracts, first)
    second = stages.second_of(context, contracts, first)
    weights = replace(weights, context=context, presence=stages.train_presence(contracts, second))
    TARGET.write_bytes(weights.to_npz())
    print(json.dumps(figures))
    return 0


def measured(contracts: list[Contract], first: list[Floats], fold: NDArray[np.int64]) -> dict[str, float]:
    """Second and third stage by folds; prints the table and gives the figures."""
    second = list(first)
    for seen, unseen in _folds(fold):
        context = stages.train_context([contracts[i] for i in seen], [first[i] for i in seen])
        found = stages.second_of(context, [contracts[i] for i in unseen], [first[i] for i in unseen])
        for place, logits in zip(unseen, found, strict=True):
            second[place] = logits
    probabilities = np.zeros((len(contracts), len(HEADS)), np.float32)
    for seen, unseen in _folds(fold):
        weights = stages.train_presence([contracts[i] for i in seen], [second[i] for i in seen])
        for place in unseen:
            probabilities[place] = presence(weights, second[place], contracts[place].found)
    spans, present = span_counts(contracts, second), presence_counts(contracts, probabilities >= PRESENT)
    print(f"{'':36s} by document: P, R, F1    by span: P, R, F1")
    for head, name in enumerate(HEADS):
        values = (*present.micro([head]), *spans.micro([head]))
        print(f"{name:36s} " + "  ".join(f"{value:.2f}" for value in values))
    figures = {
        "document_micro_f1": present.micro(NARROW)[2],
        "document_macro_f1": present.macro(NARROW),
        "document_micro_f1_all": present.micro(range(len(HEADS)))[2],
        "document_precision_at_80_recall": precision_at_recall(contracts, probabilities),
        "span_micro_precision": spans.micro(NARROW)[0],
        "span_micro_recall": spans.micro(NARROW)[1],
        "span_micro_f1": spans.micro(NARROW)[2],
        "span_macro_f1": spans.macro(NARROW),
    }
    return {name: round(value, 4) for name, value in figures.items()}


def _folds(fold: NDArray[np.int64]) -> list[tuple[list[int], list[int]]]:
    """Places in each fold's training part and in the fold."""
    return [(np.flatnonzero(fold != held).tolist(), np.flatnonzero(fold == held).tolist()) for held in range(FOLDS)]


if __name__ == "__main__":
    sys.exit(main())
