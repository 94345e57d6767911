"""Fits the tagger's weights: ``python -m workers.analysis.sensitive.training.train SHARED_DATA``, some minutes.

CRFsuite (MIT) maximises the likelihood with an L1 and an L2 penalty; what is left goes to ``weights.npz``.
Learned from are the labelled samples, three times, passages of :mod:`sentences` and sentences of :mod:`contracts`; the
order and all draws are fixed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycrfsuite

from workers.analysis.sensitive.tagger import LABELS, Weights, sentence_features
from workers.analysis.sensitive.training.contracts import contract_sentences
from workers.analysis.sensitive.training.labelled import Sample, labelled, load
from workers.analysis.sensitive.training.sentences import sentences

SEED = 20_261_125
PASSAGES = 2_200
FROM_CONTRACTS = 800
REPEATS = 3
L1, L2, ROUNDS = 0.15, 0.02, 60


def main() -> int:
    """Train on all samples and write the weights beside the tagger."""
    data = Path(sys.argv[1])
    weights = fit(load(data / "pii" / "samples.jsonl"), data / "cuad")
    target = Path(__file__).parents[1] / "weights.npz"
    target.write_bytes(weights.to_bytes())
    print(f"{len(weights.rows)} features, {target.stat().st_size} bytes")
    return 0


def fit(samples: Sequence[Sample], cuad: Path) -> Weights:
    """The weights that ``samples``, our own sentences and the contracts give."""
    crfsuite: Any = pycrfsuite  # has no types
    trainer = crfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params({"c1": L1, "c2": L2, "max_iterations": ROUNDS, "feature.possible_transitions": True})
    learned = [(sample.text, sample.spans) for sample in samples] * REPEATS
    others = [*sentences(PASSAGES, SEED), *contract_sentences(cuad, FROM_CONTRACTS, SEED)]
    learned += [(made.text, made.spans) for made in others]
    for text, spans in learned:
        tokens, labels = labelled(text, spans)
        trainer.append(sentence_features(tokens.keys), labels)
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model")
        trainer.train(model)
        tagger = crfsuite.Tagger()
        tagger.open(model)
        info = tagger.info()
        tagger.close()
    return _weights(info.state_features, info.transitions)


def _weights(states: dict[tuple[str, str], float], moves: dict[tuple[str, str], float]) -> Weights:
    label_of = {label: number for number, label in enumerate(LABELS)}
    names = sorted({name for (name, _), weight in states.items() if abs(weight) >= 0.01})
    rows = {name: row for row, name in enumerate(names)}
    table = np.zeros((len(rows), len(LABELS)), np.float32)
    for (name, label), weight in states.items():
        if name in rows:
            table[rows[name], label_of[label]] = weight
    steps = np.zeros((len(LABELS), len(LABELS)), np.float32)
    for (left, right), weight in moves.items():
        steps[label_of[left], label_of[right]] = weight
    return Weights(rows, table, steps)


if __name__ == "__main__":
    sys.exit(main())
