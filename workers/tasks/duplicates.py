"""Job ``duplicates``: the near-duplicates among the documents of a matter or of a list.

Each document's sketch and shingles are kept under it, so that the next job over a grown matter reads only what is new.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import CasemillError, NotFound, Transient
from services.jobs import Claim
from shaders.minhash import PERMUTATIONS
from workers.analysis.duplicates import Duplicates, find_duplicates
from workers.analysis.minhash import engine, sketch
from workers.analysis.shingles import Hashes, shingles
from workers.execution import Execution
from workers.tasks.extract import read_text
from workers.tasks.report import NOTICE
from workers.toolbox import Toolbox

# Raise when the same text gives other shingles or another sketch.
VERSION = "1"
# Shingles held in memory for comparison; documents that are alike are needed again and again.
CACHE_BYTES = 64 * 2**20
_SKETCH_BYTES = 4 * PERMUTATIONS


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
    prepared = time.monotonic()
    found = find_duplicates(
        np.array(shelf.sketches, np.uint32).reshape(-1, PERMUTATIONS),
        shelf.sizes,
        shelf.load,
        threshold=body["threshold"],
        tick=execution.check,
    )
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
    """The documents that are compared, by number: names, sketches and sizes in memory, shingles in their blobs."""

    toolbox: Toolbox
    execution: Execution
    claim: Claim
    documents: list[str] = field(default_factory=list[str])
    sketches: list[NDArray[np.uint32]] = field(default_factory=list[NDArray[np.uint32]])
    sizes: list[int] = field(default_factory=list[int])
    names: dict[str, str] = field(default_factory=dict[str, str])
    too_short: list[str] = field(default_factory=list[str])
    unread: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    computed: int = 0

    def __post_init__(self) -> None:
        self.engine = engine(self.toolbox.settings.adapter)
        self._blobs: list[str] = []
        self._held: OrderedDict[int, Hashes] = OrderedDict()
        self._held_bytes = 0

    def add(self, document: str) -> None:
        """Take a document's shingles from where they are kept, or read it; one without text is noted as unread."""
        toolbox, claim = self.toolbox, self.claim
        without = ":without numbers" if claim.input["ignore_numbers"] else ""
        version = f"{VERSION}{without}"
        try:
            self.names[document] = toolbox.documents.get(claim.tenant, document).name
            step = toolbox.derive(claim, "shingles", version, lambda: self._compute(document), document=document)
            data = toolbox.blobs.get(claim.tenant, step["output"])
        except Transient:
            raise
        except CasemillError as error:
            self.unread.append({"document": document, "code": error.code, "detail": error.detail})
            return
        self.computed += not step["reused"]
        size = (len(data) - _SKETCH_BYTES) // 8
        if not size:
            self.too_short.append(document)
            return
        self.documents.append(document)
        self.sketches.append(np.frombuffer(data, "<u4", PERMUTATIONS))
        self.sizes.append(size)
        self._blobs.append(step["output"])

    def load(self, number: int) -> Hashes:
        """The shingles of a document, ascending, from memory or its blob."""
        held = self._held.get(number)
        if held is None:
            try:
                data = self.toolbox.blobs.get(self.claim.tenant, self._blobs[number])
            except NotFound:
                raise Transient("a document was deleted while it was compared", code="document_deleted") from None
            held = self._held[number] = np.frombuffer(data, "<u8", offset=_SKETCH_BYTES)
            self._held_bytes += held.nbytes
            while self._held_bytes > CACHE_BYTES and len(self._held) > 1:
                self._held_bytes -= self._held.popitem(last=False)[1].nbytes
        self._held.move_to_end(number)
        return held

    def _compute(self, document: str) -> bytes:
        """A document's sketch, 512 bytes, and its shingles, 8 bytes each, little-endian."""
        text = read_text(self.toolbox, self.execution, document)[0].text
        hashes = shingles(text, ignore_numbers=self.claim.input["ignore_numbers"], tick=self.execution.check)
        self.execution.check()
        sketched = sketch([hashes], adapter=self.toolbox.settings.adapter)
        return sketched.astype("<u4").tobytes() + hashes.astype("<u8").tobytes()


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
