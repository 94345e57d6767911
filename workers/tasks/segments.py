"""Step ``embed``: a vector for each sentence of the text and for each category of the playbook, each computed once."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.playbooks import Playbook
from services.texts import DocumentText
from workers.analysis.sentences import VERSION as SENTENCES_VERSION
from workers.analysis.sentences import find_sentences
from workers.engines.base import EmbeddingEngine, Tick, WorkCancelled, no_tick
from workers.execution import Execution, Stopped
from workers.tasks.generate import model_stamp
from workers.tasks.known_vectors import KEY_CHARS, known_vectors, text_keys
from workers.toolbox import Toolbox

# Raise the last part when the same sentences are cut into other segments.
VERSION = f"{SENTENCES_VERSION}.3"
MAX_OWN = 16
_own_vectors: dict[tuple[str, str], NDArray[np.float32]] = {}


def embed_segments(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Embed the text of the extract step; answers as :func:`embed_document` does."""
    claim = execution.claim
    engine = execution.use(toolbox.engines.lease_embedding(str(claim.model), tick=execution.check))
    document = toolbox.input(claim)["document"]
    return embed_document(toolbox, execution, engine, toolbox.playbook(claim), document, lambda: toolbox.text(claim))


def embed_document(
    toolbox: Toolbox,
    execution: Execution,
    engine: EmbeddingEngine,
    playbook: Playbook,
    document: str,
    text: Callable[[], DocumentText],
) -> dict[str, Any]:
    """Embed a document of the tenant; the output holds what :func:`load_segments` reads and ``keys`` (n).

    ``text`` is called where there are no vectors yet. ``computed`` of the result counts the texts whose vectors no
    document of the tenant held.
    """
    claim = execution.claim
    body, blobs, index = toolbox.input(claim), toolbox.blobs, toolbox.documents.vectors
    keys: list[str] = []
    missing: dict[str, str] = {}

    def run() -> bytes:
        read = text()
        spans = segments(read, engine, execution.check)
        texts = [read.text[start:end] for start, end in spans]
        keys.extend(text_keys(blobs, claim.tenant, engine.model.sha256, texts))
        known = {} if body.get("force") else known_vectors(blobs, index, claim.tenant, keys, execution.check)
        missing.update((key, text) for key, text in zip(keys, texts, strict=True) if key not in known)
        known.update(zip(missing, embed_texts(engine, list(missing.values()), execution), strict=True))
        output = io.BytesIO()
        np.savez(
            output,
            spans=np.array(spans, np.int64).reshape(-1, 2),
            keys=np.array(keys, f"U{KEY_CHARS}"),
            vectors=np.array([known[key] for key in keys], np.float32).reshape(-1, engine.model.dimensions),
            categories=category_vectors(engine, playbook, execution),
        )
        return output.getvalue()

    version = f"{VERSION}:{engine.model.sha256}:{playbook.version}"
    step = toolbox.derive(claim, "vectors", version, run, document=document)
    if not step["reused"]:
        index.add(claim.tenant, document, step["output"], list(dict.fromkeys(keys)))
    return step | {"model": model_stamp(engine.model), "computed": len(missing)}


def embed_texts(engine: EmbeddingEngine, texts: list[str], execution: Execution) -> NDArray[np.float32]:
    """A vector a text, (n, d), at the job's priority; raises :class:`Stopped` where the job must stop."""
    if not texts:
        return np.zeros((0, engine.model.dimensions), np.float32)
    try:
        return engine.embed(
            texts, priority=execution.claim.priority.rank, cancelled=execution.stopped, tick=execution.tick
        ).vectors
    except WorkCancelled:
        raise Stopped from None


def category_vectors(engine: EmbeddingEngine, playbook: Playbook, execution: Execution) -> NDArray[np.float32]:
    """The vectors of :func:`prototypes`, (c, d), which no document has a part in: kept in the process."""
    known = (engine.model.sha256, playbook.version)
    vectors = _own_vectors.get(known)
    if vectors is None:
        vectors = embed_texts(engine, prototypes(playbook), execution)
        if len(_own_vectors) >= MAX_OWN:
            _own_vectors.clear()
        _own_vectors[known] = vectors
    return vectors


def prototypes(playbook: Playbook) -> list[str]:
    """One sentence a category, which stands for it in the space of embeddings."""
    return [f"{category.title}: {category.description}" for category in playbook.categories]


def segments(document: DocumentText, engine: EmbeddingEngine, check: Tick = no_tick) -> list[tuple[int, int]]:
    """The clauses of the document; one that is too long for the model is halved at white space until it fits.

    ``check`` is called before each text that is measured.
    """
    found: list[tuple[int, int]] = []
    pending = clause_spans(document)[::-1]
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


def clause_spans(document: DocumentText) -> list[tuple[int, int]]:
    """The clauses of a clause bank, elsewhere the sentences."""
    if document.labels:
        return [(item.start, item.end) for item in document.paragraphs]
    return find_sentences(document)


@dataclass(frozen=True, eq=False)
class Segments:
    """What :func:`embed_document` keeps: ``spans`` (n, 2), ``vectors`` (n, d), ``categories`` (c, d)."""

    spans: NDArray[np.int64]
    vectors: NDArray[np.float32]
    categories: NDArray[np.float32]


def load_segments(data: bytes) -> Segments:
    """The output of :func:`embed_document`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Segments(arrays["spans"], arrays["vectors"], arrays["categories"])
