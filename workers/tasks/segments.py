"""Step ``embed``: a vector for each paragraph of the text and for each category of the playbook."""

from __future__ import annotations

import io
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from services.playbooks import Playbook, default_playbook
from services.texts import DocumentText
from workers.engines.base import EmbeddingEngine, Tick, WorkCancelled, no_tick
from workers.execution import Execution, Stopped
from workers.tasks.generate import model_stamp
from workers.toolbox import Toolbox

# Raise when the same text is cut into other segments.
VERSION = "1"
MIN_CHARS = 20


def embed_segments(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Embed the text; the output holds ``spans`` (n, 2), ``vectors`` (n, d) and ``categories`` (c, d)."""
    claim = execution.claim
    engine = execution.use(toolbox.engines.lease_embedding(str(claim.model), tick=execution.check))
    playbook = default_playbook()
    document = toolbox.text(claim)

    def run() -> bytes:
        spans = segments(document, engine, execution.check)
        texts = [document.text[start:end] for start, end in spans] + prototypes(playbook)
        try:
            vectors = engine.embed(
                texts, priority=claim.priority.rank, cancelled=execution.stopped, tick=execution.tick
            ).vectors
        except WorkCancelled:
            raise Stopped from None
        output = io.BytesIO()
        np.savez(
            output,
            spans=np.array(spans, np.int64).reshape(-1, 2),
            vectors=vectors[: len(spans)],
            categories=vectors[len(spans) :],
        )
        return output.getvalue()

    version = f"{VERSION}:{engine.model.sha256}:{playbook.version}"
    step = toolbox.derive(claim, "vectors", version, run)
    return step | {"model": model_stamp(engine.model)}


def prototypes(playbook: Playbook) -> list[str]:
    """One sentence a category, which stands for it in the space of embeddings."""
    return [f"{category.title}: {category.description}" for category in playbook.categories]


def segments(document: DocumentText, engine: EmbeddingEngine, check: Tick = no_tick) -> list[tuple[int, int]]:
    """The paragraphs worth embedding; one that is too long for the model is halved at white space until it fits.

    ``check`` is called before each text that is measured.
    """
    found: list[tuple[int, int]] = []
    pending = [(item.start, item.end) for item in reversed(document.paragraphs) if item.end - item.start >= MIN_CHARS]
    while pending:
        check()
        start, end = pending.pop()
        if engine.count_tokens(document.text[start:end]) <= engine.limit:
            found.append((start, end))
            continue
        middle = (start + end) // 2
        cut = document.text.rfind(" ", start + 1, middle)
        cut = cut if cut > start else middle
        pending += [(cut, end), (start, cut)]
    return found


def load_segments(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """``spans``, ``vectors`` and ``categories`` of :func:`embed_segments`."""
    arrays = np.load(io.BytesIO(data), allow_pickle=False)
    return (
        cast(NDArray[np.int64], arrays["spans"]),
        cast(NDArray[np.float32], arrays["vectors"]),
        cast(NDArray[np.float32], arrays["categories"]),
    )
