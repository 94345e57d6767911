"""Task ``search``: the clauses of documents, a matter or a clause bank that fit a query, each with its place.

Vectors are those of step ``embed``, kept under its label, so a document is embedded once for all searches.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidRequest, ModelError, Permanent
from services.playbooks import default_playbook
from services.texts import DocumentText
from workers.analysis.bm25 import VERSION as WORDS_VERSION
from workers.analysis.bm25 import Words
from workers.analysis.ranking import Corpus, Hit, hybrid, similar
from workers.engines.base import EmbeddingEngine
from workers.execution import Execution
from workers.tasks.extract import read_text
from workers.tasks.generate import model_stamp
from workers.tasks.report import NOTICE
from workers.tasks.segments import VERSION as SEGMENTS_VERSION
from workers.tasks.segments import clause_spans, embed_document, embed_texts, load_segments
from workers.toolbox import Toolbox

MAX_PARTS: Final = 500_000
"""Vectors of one search: 768 MB of MiniLM's."""


@dataclass(frozen=True, slots=True)
class _Searched:
    """A document that is searched: its parts' ``vectors`` (n, d) and ``owners`` (n), numbers of its clauses."""

    document: str
    words: Words
    vectors: NDArray[np.float32]
    owners: NDArray[np.int64]
    computed: int


def search(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """The hits of each query; documents that cannot be read are named with the reason and left out."""
    claim, body, started = execution.claim, toolbox.input(execution.claim), time.monotonic()
    engine = execution.use(toolbox.engines.lease_embedding(str(claim.model), tick=execution.check))
    documents: list[str] = body.get("documents") or toolbox.documents.of_matter(claim.tenant, body["matter"])
    searched: list[_Searched] = []
    skipped: list[dict[str, str]] = []
    parts = 0
    for number, document in enumerate(dict.fromkeys(documents), 1):
        execution.check()
        try:
            found = _searched(toolbox, execution, engine, document)
        except ModelError:
            raise
        except Permanent as error:
            skipped.append({"document": document, "code": error.code, "detail": error.detail})
            continue
        searched.append(found)
        parts += len(found.owners)
        if parts > MAX_PARTS:
            raise InvalidRequest(
                f"the documents have more than {MAX_PARTS:,} clauses; search them in several parts",
                code="search_too_large",
            )
        if found.computed:
            execution.progress(step="embed", done=number, of=len(documents))
    hits, used = _rank(toolbox, execution, engine, body, searched)
    places = _Places(toolbox, execution, searched)
    queries = [
        {"query": text, "hits": [places.of(hit) for hit in found]}
        for text, found in zip(body["queries"], hits, strict=True)
    ]
    return {
        "queries": queries,
        "mode": body["mode"],
        "documents": places.quoted,
        "searched": {"documents": len(searched), "clauses": sum(len(item.words.lengths) for item in searched)},
        "skipped": skipped,
        "computed": sum(item.computed for item in searched),
        "engine": used,
        "model": model_stamp(engine.model),
        "seconds": round(time.monotonic() - started, 4),
        "notice": NOTICE,
    }


def _searched(toolbox: Toolbox, execution: Execution, engine: EmbeddingEngine, document: str) -> _Searched:
    """A document's words and vectors, made unless they are there."""
    claim = execution.claim

    @cache
    def text() -> DocumentText:
        return read_text(toolbox, execution, document)[0]

    def count() -> bytes:
        read = text()
        return Words.of(read.text, clause_spans(read), execution.check).to_bytes()

    toolbox.documents.get(claim.tenant, document)
    version = f"{SEGMENTS_VERSION}:{WORDS_VERSION}"
    counted = toolbox.derive(claim, "words", version, count, document=document)
    words = Words.from_bytes(toolbox.blobs.get(claim.tenant, counted["output"]))
    # Always under the default playbook's label; vectors of a review by another are known by their texts.
    step = embed_document(toolbox, execution, engine, default_playbook(), document, text)
    segments = load_segments(toolbox.blobs.get(claim.tenant, step["output"]))
    # A clause too long for the model has several parts.
    owners = np.searchsorted(words.spans[:, 0], segments.spans[:, 0], side="right") - 1
    return _Searched(document, words, segments.vectors, owners, step["computed"])


def _rank(
    toolbox: Toolbox,
    execution: Execution,
    engine: EmbeddingEngine,
    body: dict[str, Any],
    searched: list[_Searched],
) -> tuple[list[list[Hit]], str]:
    """The hits of each query, by the number of the clause among all that are searched, and what computed them."""
    queries = embed_texts(engine, body["queries"], execution)
    firsts = np.cumsum([0, *(len(item.words.lengths) for item in searched)])
    corpus = Corpus(
        np.concatenate([np.zeros((0, engine.model.dimensions), np.float32), *(item.vectors for item in searched)]),
        np.concatenate(
            [np.zeros(0, np.int64), *(item.owners + first for item, first in zip(searched, firsts[:-1], strict=True))]
        ),
        [item.words for item in searched],
    )
    execution.check()
    # As with the scan: one search is too small for a GPU to pay, unless the operator named an adapter.
    adapter = toolbox.settings.adapter
    if body["mode"] == "similar":
        return similar(corpus, queries, body["k"], gpu=bool(adapter), adapter=adapter)
    return hybrid(corpus, queries, body["queries"], body["k"], gpu=bool(adapter), adapter=adapter)


class _Places:
    """Says where hits stand; reads the texts of their documents alone, each once. ``quoted`` are those documents."""

    def __init__(self, toolbox: Toolbox, execution: Execution, searched: list[_Searched]) -> None:
        self.quoted: list[str] = []
        self._toolbox = toolbox
        self._execution = execution
        self._searched = searched
        self._firsts = np.cumsum([0, *(len(item.words.lengths) for item in searched)])
        self._texts: dict[str, tuple[DocumentText, str]] = {}

    def of(self, hit: Hit) -> dict[str, Any]:
        """A hit as the result shows it; ``clause`` is its id in a clause bank."""
        number = int(np.searchsorted(self._firsts, hit.clause, side="right")) - 1
        found, row = self._searched[number], hit.clause - int(self._firsts[number])
        text, name = self._text(found.document)
        start, end = (int(offset) for offset in found.words.spans[row])
        place: dict[str, Any] = {
            "document": found.document,
            "name": name,
            "start": start,
            "end": end,
            "page": text.page_at(start),
            "text": text.text[start:end],
            "score": round(hit.score, 6),
            "cosine": round(hit.cosine, 6),
            "bm25": round(hit.bm25, 6),
        }
        return place | ({"clause": text.labels[row]} if text.labels else {})

    def _text(self, document: str) -> tuple[DocumentText, str]:
        if document not in self._texts:
            text = read_text(self._toolbox, self._execution, document)[0]
            name = self._toolbox.documents.get(self._execution.claim.tenant, document).name
            self._texts[document] = text, name
            self.quoted.append(document)
        return self._texts[document]
