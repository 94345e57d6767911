"""Writes the contracts' sentences as tokens, for fine-tuning on another machine.

`python -m workers.analysis.clause_heads.training.sentences DATA FILE`: DATA is the folder of CUAD's developer part. The
file holds no text: ``tokens`` of all n sentences end to end, ``lengths`` (n), ``document`` (n) and ``fold`` (n),
``windows`` (m, 4) as :class:`~workers.engines.windows.Window`, and ``labels`` (n, ``heads`` bits): whether a sentence
holds a clause, and whether it is one for the most part.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import workers.engines  # pyright: ignore[reportUnusedImport]  # noqa: F401 (llama.cpp before numpy)

import numpy as np  # isort: skip

from services.models import Catalog
from workers.analysis.clause_heads.training.examples import HEADS, folds_of, load_contracts
from workers.engines.demo_weights import MINILM, install_demo_models
from workers.engines.llama_api import LlamaModel
from workers.engines.windows import windows_of

ROOM = 510
"""Tokens of a window, and the most that a sentence counts with: 64 of 109,930 are longer and are cut here."""


def main() -> int:
    """Write the file."""
    contracts = load_contracts(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as name:
        install_demo_models(Catalog(Path(name)))
        model = LlamaModel(Catalog(Path(name)).get(MINILM).path, gpu_layers=0, weightless=True)
        tokens = [model.tokenize(text, special=False, start=False)[:ROOM] for each in contracts for text in each.texts]
        model.close()
    lengths = np.array([len(ids) for ids in tokens])
    ends = np.cumsum([len(contract.texts) for contract in contracts]).tolist()
    windows = [
        (start + window.first, start + window.end, start + window.start, start + window.stop)
        for start, end in zip([0, *ends], ends, strict=False)
        for window in windows_of(lengths[start:end].tolist(), ROOM)
    ]
    numbers = np.repeat(np.arange(len(contracts)), [len(contract.texts) for contract in contracts])
    labels = [np.concatenate([contract.holds, contract.equals], axis=1) for contract in contracts]
    np.savez_compressed(
        sys.argv[2],
        tokens=np.concatenate(tokens).astype(np.uint16),
        lengths=lengths.astype(np.uint16),
        document=numbers.astype(np.int32),
        fold=folds_of(len(contracts))[numbers].astype(np.int8),
        windows=np.array(windows, np.int32),
        labels=np.packbits(np.concatenate(labels), axis=1),
        heads=2 * len(HEADS),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
