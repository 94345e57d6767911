"""Vectors of all sentences of the training contracts, kept in a folder so that they are computed once."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.models import Catalog
from workers.analysis.clause_heads.training.examples import Contract
from workers.analysis.clause_heads.weights import PROBE, Floats
from workers.engines.demo_weights import MINILM, install_demo_models
from workers.engines.embeddings import LlamaEmbeddings


def sentence_vectors(contracts: Sequence[Contract], folder: Path) -> tuple[list[Floats], Floats]:
    """Vectors (n, d) of each contract's sentences, and that of the probe; what ``folder`` lacks is computed."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        install_demo_models(Catalog(Path(name)))
        engine = LlamaEmbeddings(Catalog(Path(name)).get(MINILM), gpu_layers=0, threads=2)
        try:
            found = [_kept(engine, contract, folder / f"{contract.id}.npy") for contract in contracts]
            probe = engine.embed([PROBE]).vectors[0]
        finally:
            engine.close()
    return found, probe


def _kept(engine: LlamaEmbeddings, contract: Contract, path: Path) -> Floats:
    if not path.exists():
        print(f"computing {len(contract.texts)} vectors of {contract.id}", file=sys.stderr, flush=True)
        vectors = _vectors(engine, contract.texts)
        np.save(path, vectors.astype(np.float16))
    return np.load(path).astype(np.float32)


def _vectors(engine: LlamaEmbeddings, texts: Sequence[str]) -> Floats:
    """Of sentences; one that is too long for the model is the mean of its parts, as near as it matters here."""
    parts = [_parts(engine, text) for text in texts]
    flat = engine.embed([part for found in parts for part in found]).vectors
    ends = np.cumsum([len(found) for found in parts])
    means = np.stack([part.mean(axis=0) for part in np.split(flat, ends[:-1])])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def _parts(engine: LlamaEmbeddings, text: str) -> list[str]:
    if engine.count_tokens(text) <= engine.limit:
        return [text]
    middle = len(text) // 2
    return _parts(engine, text[:middle]) + _parts(engine, text[middle:])
