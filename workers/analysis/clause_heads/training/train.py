"""Trains and measures the clause heads: `python -m workers.analysis.clause_heads.training.train DATA TUNED`.

DATA is the folder of CUAD's developer part, TUNED what :mod:`~workers.analysis.clause_heads.training.finetune` wrote.
Five folds by contract: a contract's first logits come from models of the four other folds; the later stages are
measured on the fold that they were not trained on. The figures are those of the folds, what is written is trained on
all contracts. Takes some seven minutes of two cores. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import workers.engines  # pyright: ignore[reportUnusedImport]  # noqa: F401 (llama.cpp before numpy)

import numpy as np  # isort: skip
from numpy.typing import NDArray

from services.models import CLAUSE_MODEL, Catalog
from workers.analysis.clause_heads.context import PRESENT, presence
from workers.analysis.clause_heads.logits import First, lexical_logits
from workers.analysis.clause_heads.training import stages
from workers.analysis.clause_heads.training.examples import FOLDS, HEADS, Contract, folds_of, load_contracts
from workers.analysis.clause_heads.training.measure import (
    NARROW,
    precision_at_recall,
    presence_counts,
    span_counts,
)
from workers.analysis.clause_heads.weights import PROBE, Floats
from workers.engines.demo_weights import ADAPTER, install_demo_models
from workers.engines.embeddings import GgufEmbeddings

TARGET = Path(__file__).parents[1] / "weights.npz"


def main() -> int:
    """Print a table by category and one JSON line; write the weights."""
    contracts, tuned = load_contracts(Path(sys.argv[1])), Path(sys.argv[2])
    fold = folds_of(len(contracts))
    dense, head, bias = tuned_logits(contracts, tuned)
    probe = install_adapter(tuned)
    lexical: list[Floats] = list(dense)
    for number, (seen, unseen) in enumerate(_folds(fold), 1):
        weights = stages.whole(stages.train_words([contracts[i] for i in seen]), head, bias, probe)
        for place in unseen:
            lexical[place] = lexical_logits(weights, contracts[place].texts)
        print(f"fold {number} of {FOLDS}", file=sys.stderr, flush=True)
    blends: list[Floats] = [_blend(contracts, lexical, dense, seen) for seen, _ in _folds(fold)]
    held: list[int] = fold.tolist()
    first = [First.of(words, vectors, blends[out]) for words, vectors, out in zip(lexical, dense, held, strict=True)]
    figures = measured(contracts, first, fold)
    weights = stages.whole(stages.train_words(contracts), head, bias, probe)
    context = stages.train_context(contracts, first)
    weights = replace(
        weights,
        blend=_blend(contracts, lexical, dense, range(len(contracts))),
        context=context,
        presence=stages.train_presence(contracts, first, stages.second_of(context, contracts, first)),
    )
    TARGET.write_bytes(weights.to_npz())
    print(json.dumps(figures))
    return 0


def tuned_logits(contracts: list[Contract], tuned: Path) -> tuple[list[Floats], Floats, Floats]:
    """Logits by vectors of each contract, of models that had not seen it; the head (d, h) and its bias for all."""
    ends = np.cumsum([len(contract.texts) for contract in contracts])
    found = np.zeros((int(ends[-1]), len(HEADS)), np.float32)
    for number in range(FOLDS):
        with np.load(tuned / f"unseen{number}.npz") as arrays:
            found[arrays["rows"]] = arrays["logits"][:, : len(HEADS)]
    with np.load(tuned / "adapter.npz") as arrays:
        head, bias = arrays["dense"][:, : len(HEADS)], arrays["bias"][: len(HEADS)]
    return np.split(found, ends[:-1].tolist()), head, bias


def install_adapter(tuned: Path) -> Floats:
    """Put the adapter where the models are made from; the vector (d) of the probe by the model with it."""
    with np.load(tuned / "adapter.npz") as arrays:
        np.savez_compressed(ADAPTER, **{name: arrays[name] for name in arrays.files if name.endswith((".A", ".B"))})
    with tempfile.TemporaryDirectory() as name:
        install_demo_models(Catalog(Path(name)))
        engine = GgufEmbeddings.on_cpu(Catalog(Path(name)).get(CLAUSE_MODEL), threads=2)
        try:
            return engine.embed_in_context([PROBE]).vectors[0]
        finally:
            engine.close()


def _blend(contracts: list[Contract], lexical: list[Floats], dense: list[Floats], seen: Sequence[int]) -> Floats:
    return stages.train_blend([contracts[i] for i in seen], [lexical[i] for i in seen], [dense[i] for i in seen])


def measured(contracts: list[Contract], first: list[First], fold: NDArray[np.int64]) -> dict[str, float]:
    """Second and third stage by folds; prints the table and gives the figures."""
    second = [logits.both for logits in first]
    for seen, unseen in _folds(fold):
        context = stages.train_context([contracts[i] for i in seen], [first[i] for i in seen])
        found = stages.second_of(context, [contracts[i] for i in unseen], [first[i] for i in unseen])
        for place, logits in zip(unseen, found, strict=True):
            second[place] = logits
    probabilities = np.zeros((len(contracts), len(HEADS)), np.float32)
    for seen, unseen in _folds(fold):
        weights = stages.train_presence(
            [contracts[i] for i in seen], [first[i] for i in seen], [second[i] for i in seen]
        )
        for place in unseen:
            probabilities[place] = presence(weights, first[place], second[place], contracts[place].found)
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
