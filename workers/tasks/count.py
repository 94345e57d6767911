"""Job ``count``: how many findings of each of a playbook's categories each document of a matter or of a list has.

The texts stay with the worker as a room, so that the next playbook over the same documents loads none of them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import CasemillError, NotFound, Transient
from services.jobs import Claim
from services.playbooks import Playbook
from services.texts import DocumentText
from workers.analysis.collection import Collection, engine
from workers.analysis.scan import Device
from workers.execution import Execution
from workers.rooms import Part
from workers.tasks.extract import VERSION as TEXT_VERSION
from workers.tasks.extract import read_text
from workers.tasks.report import NOTICE
from workers.toolbox import Toolbox

# Bytes of texts that are loaded before they are counted; a room that does not stay takes two of these at most.
PART = 128 << 20


@dataclass(frozen=True, slots=True)
class _Listed:
    """A document that has a text, and the blob of that."""

    document: str
    name: str
    text: str


def count_findings(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Count in the documents; those without a text are named with the reason."""
    claim, started = execution.claim, time.monotonic()
    playbook = toolbox.playbook(claim)
    listed, unread = _list(toolbox, execution)
    read = time.monotonic()
    counts, notes, resident = _count(toolbox, execution, playbook, listed)
    return {
        "matter": claim.input.get("matter"),
        "playbook": {"name": playbook.name, "sha256": playbook.version},
        "categories": _categories(playbook, counts),
        "counted": len(listed),
        "documents": _documents(playbook, listed, counts, notes),
        "unread": unread,
        "resident": resident,
        "engine": engine(playbook, device=_device(toolbox, claim), adapter=toolbox.settings.adapter),
        "seconds": {"documents": round(read - started, 4), "counting": round(time.monotonic() - read, 4)},
        "notice": NOTICE,
    }


def _list(toolbox: Toolbox, execution: Execution) -> tuple[list[_Listed], list[dict[str, Any]]]:
    """The documents that have a text, read now unless they were before, and those that have none, with the reason."""
    claim, body = execution.claim, execution.claim.input
    documents: list[str] = body.get("documents") or toolbox.documents.of_matter(claim.tenant, body["matter"])
    listed: list[_Listed] = []
    unread: list[dict[str, Any]] = []
    for number, document in enumerate(documents, 1):
        execution.check()
        name = None
        try:
            name = toolbox.documents.get(claim.tenant, document).name
            text = toolbox.kept(claim, "text", TEXT_VERSION, document)
            text = text or str(read_text(toolbox, execution, document)[1]["output"])
            listed.append(_Listed(document, name, text))
        except Transient:
            raise
        except CasemillError as error:  # trying again is no use
            unread.append({"document": document, "name": name, "code": error.code, "detail": error.detail})
        if number * 100 // len(documents) > (number - 1) * 100 // len(documents):  # a hundred events at most
            execution.progress(documents=number, total=len(documents))
    return listed, unread


def _count(
    toolbox: Toolbox, execution: Execution, playbook: Playbook, listed: Sequence[_Listed]
) -> tuple[NDArray[np.int64], list[Sequence[str]], bool]:
    """The counts, (documents, categories), what the reader of each noted, and whether the texts were there already."""
    claim = execution.claim
    device = _device(toolbox, claim)
    texts = hashlib.sha256("\n".join([device, *(item.text for item in listed)]).encode()).hexdigest()
    counts = [np.zeros((0, len(playbook.categories)), np.int64)]
    notes: list[Sequence[str]] = []
    try:
        with toolbox.rooms.room(claim.tenant, texts, execution.check) as room:
            resident = bool(room.kept)
            for part in room.parts(lambda: _load(toolbox, execution, device, listed)):
                counts.append(part.collection.count(playbook, execution.check))
                notes += part.notes
    except Transient as error:
        if error.code == "gpu_memory":  # the next attempt has what other rooms took
            toolbox.rooms.forget()
        raise
    return np.concatenate(counts), notes, resident


def _load(toolbox: Toolbox, execution: Execution, device: Device, listed: Sequence[_Listed]) -> Iterator[Part]:
    """The texts from their blobs, in parts."""
    texts: list[bytes] = []
    notes: list[Sequence[str]] = []
    size = 0
    for item in listed:
        execution.check()
        try:
            read = DocumentText.from_json(toolbox.blobs.get(execution.claim.tenant, item.text))
        except NotFound:
            raise Transient("a document was deleted while it was counted", code="document_deleted") from None
        text = read.text.encode()
        if texts and size + len(text) > PART:
            yield Part(Collection(texts, device=device, adapter=toolbox.settings.adapter), size, notes)
            texts, notes, size = [], [], 0
        texts.append(text)
        notes.append(read.notes)
        size += len(text)
    if texts:
        yield Part(Collection(texts, device=device, adapter=toolbox.settings.adapter), size, notes)


def _device(toolbox: Toolbox, claim: Claim) -> Device:
    """The GPU where the job asks for one, or leaves it open and the operator named an adapter; the same counts."""
    if claim.device == "any":
        return "gpu" if toolbox.settings.adapter else "cpu"
    return claim.device.value


def _categories(playbook: Playbook, counts: NDArray[np.int64]) -> list[dict[str, Any]]:
    findings, documents = counts.sum(axis=0).tolist(), (counts > 0).sum(axis=0).tolist()
    return [
        {"category": category.id, "title": category.title, "findings": found, "documents": having}
        for category, found, having in zip(playbook.categories, findings, documents, strict=True)
    ]


def _documents(
    playbook: Playbook, listed: Sequence[_Listed], counts: NDArray[np.int64], notes: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """A row a document, those with most findings first, then by name."""
    rows: list[dict[str, Any]] = []
    for item, row, noted in zip(listed, counts.tolist(), notes, strict=True):
        found = {category.id: count for category, count in zip(playbook.categories, row, strict=True) if count}
        shown = {"document": item.document, "name": item.name, "findings": sum(row), "counts": found}
        rows.append(shown | ({"notes": list(noted)} if noted else {}))
    return sorted(rows, key=lambda row: (-row["findings"], row["name"], row["document"]))
