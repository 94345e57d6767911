"""Step ``context``: a vector for each sentence as it reads among its neighbours, which the clause heads score."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.analysis.clause_heads.weights import PROBE
from workers.engines.base import EmbeddingEngine, WorkCancelled
from workers.execution import Execution, Stopped
from workers.tasks.generate import model_stamp
from workers.tasks.segments import VERSION as SEGMENTS_VERSION
from workers.tasks.segments import segments
from workers.toolbox import Toolbox

# Raise the last part when the same segments are read in other windows.
VERSION = f"{SEGMENTS_VERSION}.1"


def embed_context(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Embed the text of the extract step; the output holds what :func:`load_context` reads."""
    claim = execution.claim
    engine = execution.use(toolbox.engines.lease_embedding(str(claim.model), tick=execution.check))

    def run() -> bytes:
        document = toolbox.text(claim)
        spans = segments(document, engine, execution.check)
        texts = [document.text[start:end] for start, end in spans]
        output = io.BytesIO()
        np.savez(
            output,
            spans=np.array(spans, np.int64).reshape(-1, 2),
            vectors=_vectors(engine, texts, execution),
            probe=_vectors(engine, [PROBE], execution)[0],
        )
        return output.getvalue()

    step = toolbox.derive(claim, "context", f"{VERSION}:{engine.model.sha256}", run)
    return step | {"model": model_stamp(engine.model)}


def _vectors(engine: EmbeddingEngine, texts: list[str], execution: Execution) -> NDArray[np.float32]:
    try:
        return engine.embed_in_context(
            texts, priority=execution.claim.priority.rank, cancelled=execution.stopped, tick=execution.tick
        ).vectors
    except WorkCancelled:
        raise Stopped from None


@dataclass(frozen=True, eq=False)
class Context:
    """What :func:`embed_context` keeps: ``spans`` (n, 2) of sentences, ``vectors`` (n, d), ``probe`` (d)."""

    spans: NDArray[np.int64]
    vectors: NDArray[np.float32]
    probe: NDArray[np.float32]


def load_context(data: bytes) -> Context:
    """The output of :func:`embed_context`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Context(arrays["spans"], arrays["vectors"], arrays["probe"])
