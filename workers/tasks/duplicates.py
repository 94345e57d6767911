"""Job ``duplicates``: the near-duplicates among the documents of a matter or of a list.

Each document's sketch is kept under it, so that the next job over a grown matter reads only what is new; its shingles
are made and kept when a sketch like its own makes it a candidate.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import CasemillError, NotFound, Transient
from services.jobs import Claim
from shaders.minhash import NOTHING, PERMUTATIONS
from workers.analysis.duplicates import Duplicates, find_duplicates
from workers.analysis.minhash import engine, sketches
from workers.analysis.shingles import Hashes, shingles
from workers.execution import Execution
from workers.tasks.extract import read_text
from workers.tasks.report import NOTICE
from workers.toolbox import Toolbox

# Raise when the same text gives other shingles or another sketch.
VERSION = "2"
# Shingles held in memory for comparison; documents that are alike are needed again and again.
CACHE_BYTES = 64 * 2**20
# Characters of texts that are sketched together.
BATCH = 8 * 2**20


def find_near_duplicates(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Compare the documents; answers clusters, pairs, and which documents were too short or could not be read."""
    claim, body, started = execution.claim, toolbox.input(execution.claim), time.monotonic()
    documents: list[str] = body.get("documents") or toolbox.documents.of_matter(claim.tenant, body["matter"])
    shelf = _Shelf(toolbox, execution, claim)
    for number, document in enumerate(documents, 1):
        execution.check()
        shelf.add(document)
        if number * 100 // len(documents) > (number - 1) * 100 // len(documents):  # a hundred events at most
            execution.progress(documents=number, total=len(documents), computed=shelf.computed)
    made = shelf.close()
    prepared = time.monotonic()
    found = find_duplicates(made, shelf.load, threshold=body["threshold"], tick=execution.check)
    return _result(shelf, found) | {
        "matter": body.get("matter"),
        "threshold": body["threshold"],
        "ignore_numbers": body["ignore_numbers"],
        "engine": shelf.engine,
        "seconds": {"documents": round(prepared - started, 4), "comparison": round(time.monotonic() - prepared, 4)},
        "reused": shelf.computed == 0,
        "notice": NOTICE,
    }


@dataclass
class _Shelf:
    """The documents that are compared, by number: names and sketches in memory, shingles in their blobs."""

    toolbox: Toolbox
    execution: Execution
    claim: Claim
    documents: list[str] = field(default_factory=list[str])
    names: dict[str, str] = field(default_factory=dict[str, str])
    too_short: list[str] = field(default_factory=list[str])
    unread: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    computed: int = 0

    def __post_init__(self) -> None:
        self.engine = engine(self.toolbox.settings.adapter)
        self._ignore_numbers: bool = self.claim.input["ignore_numbers"]
        self._version = f"{VERSION}{':without numbers' if self._ignore_numbers else ''}"
        self._sketches: dict[str, NDArray[np.uint32]] = {}
        self._texts: dict[str, str] = {}
        self._blobs: dict[int, str] = {}
        self._held: OrderedDict[int, Hashes] = OrderedDict()
        self._held_bytes = 0

    def add(self, document: str) -> None:
        """Take a document's sketch from where it is kept, or read it for the next batch; note what cannot be read."""
        toolbox, claim = self.toolbox, self.claim
        with self._noted(document):
            self.names[document] = toolbox.documents.get(claim.tenant, document).name
            if blob := toolbox.kept(claim, "sketch", self._version, document):
                self._sketches[document] = np.frombuffer(toolbox.blobs.get(claim.tenant, blob), "<u4")
                return
            self._texts[document] = read_text(toolbox, self.execution, document)[0].text
        if sum(map(len, self._texts.values())) >= BATCH:
            self._sketch()

    def close(self) -> NDArray[np.uint32]:
        """The sketches of all documents that have shingles, (n, 128), in the order in which they were added."""
        self._sketch()
        for document in self.names:
            if (sketch := self._sketches.get(document)) is not None:
                (self.too_short if (sketch == NOTHING).all() else self.documents).append(document)
        return np.array([self._sketches[document] for document in self.documents], np.uint32).reshape(-1, PERMUTATIONS)

    def load(self, number: int) -> Hashes:
        """The shingles of a document, ascending, from memory, its blob or its text."""
        held = self._held.get(number)
        if held is None:
            try:
                if number not in self._blobs:
                    self._blobs[number] = self._shingled(self.documents[number])
                data = self.toolbox.blobs.get(self.claim.tenant, self._blobs[number])
            except NotFound:
                raise Transient("a document was deleted while it was compared", code="document_deleted") from None
            held = self._held[number] = np.frombuffer(data, "<u8")
            self._held_bytes += held.nbytes
            while self._held_bytes > CACHE_BYTES and len(self._held) > 1:
                self._held_bytes -= self._held.popitem(last=False)[1].nbytes
        self._held.move_to_end(number)
        return held

    def _sketch(self) -> None:
        """Sketch the texts at hand, together, and keep what comes of each."""
        texts, self._texts = self._texts, {}
        found = sketches(
            list(texts.values()),
            ignore_numbers=self._ignore_numbers,
            adapter=self.toolbox.settings.adapter,
            tick=self.execution.check,
        )
        for document, sketch in zip(texts, found, strict=True):
            with self._noted(document):
                self.toolbox.keep(self.claim, "sketch", self._version, document, sketch.astype("<u4").tobytes())
                self._sketches[document] = sketch
                self.computed += 1

    def _shingled(self, document: str) -> str:
        """The blob of a document's shingles, 8 bytes each, little-endian."""

        def compute() -> bytes:
            text = read_text(self.toolbox, self.execution, document)[0].text
            hashes = shingles(text, ignore_numbers=self._ignore_numbers, tick=self.execution.check)
            return hashes.astype("<u8").tobytes()

        step = self.toolbox.derive(self.claim, "shingles", self._version, compute, document=document)
        return str(step["output"])

    @contextmanager
    def _noted(self, document: str) -> Generator[None]:
        """Has what is wrong with a document told in the result, where trying again is no use."""
        try:
            yield
        except Transient:
            raise
        except CasemillError as error:
            self.unread.append({"document": document, "code": error.code, "detail": error.detail})


def _result(shelf: _Shelf, found: Duplicates) -> dict[str, Any]:
    """What was found, by ids; ``documents`` has the name of each that is named, with which the result is erased."""
    ids = shelf.documents
    pairs: list[dict[str, Any]] = []
    for pair in found.pairs:
        a, b = sorted((ids[pair.a], ids[pair.b]))
        pairs.append({"a": a, "b": b, "jaccard": pair.jaccard})
    clusters = [
        {
            "representative": ids[cluster.representative],
            "documents": [{"document": ids[member], "jaccard": jaccard} for member, jaccard in cluster.members],
        }
        for cluster in found.clusters
    ]
    clustered = [ids[member] for cluster in found.clusters for member, _ in cluster.members]
    shown = [*clustered, *shelf.too_short, *(item["document"] for item in shelf.unread)]
    return {
        "documents": {document: {"name": shelf.names[document]} for document in shown if document in shelf.names},
        "compared": len(ids),
        "computed": shelf.computed,
        "clusters": clusters,
        "pairs": sorted(pairs, key=lambda pair: (-pair["jaccard"], pair["a"], pair["b"])),
        "all_pairs": found.all_pairs,
        "too_short": shelf.too_short,
        "unread": shelf.unread,
        "method": {
            "permutations": PERMUTATIONS,
            "bands": found.bands,
            "rows": found.rows,
            "verified_pairs": found.verified,
        },
    }
