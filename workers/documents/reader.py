"""Reads a document for a worker's task: in a process of its own that is killed when late and not believed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePath

from services.errors import CasemillError, DocumentError, NotFound, PayloadTooLarge, Permanent, from_problem
from services.settings import Settings
from services.texts import DocumentText
from workers.documents import ocr
from workers.documents.limits import Limits
from workers.documents.sandbox import run_process

_VERSION = "4"  # Raise when a reader's output changes, so that kept texts and what comes of them are made anew.
_PROBLEM_STATUS = 3
# Runs isolated (-I): no environment, no user packages, not the working folder. Our packages are put before the
# installed ones, so that the child runs the same code as its parent, from a checkout as from an installation.
_BOOTSTRAP = """
import sys
at = next((i for i, p in enumerate(sys.path) if "-packages" in p), len(sys.path))
sys.path.insert(at, sys.argv[1])
from workers.documents.child import main
main(*sys.argv[2:])
"""
_ROOT = Path(__file__).resolve().parents[2]
# JSON of a text: up to six bytes a character, and the offsets of its paragraphs.
_BYTES_A_CHARACTER = 8
_BYTES_AT_LEAST = 1 << 20

_SUFFIXES = {
    "pdf": "pdf",
    "docx": "docx",
    "eml": "eml",
    "rtf": "rtf",
    "html": "html",
    "htm": "html",
    "doc": "doc",
    "jsonl": "jsonl",
}


def never_cancelled() -> bool:
    """The answer of a caller that cannot cancel."""
    return False


def read_document(
    source: Path | bytes,
    settings: Settings,
    *,
    name: str | None = None,
    cancelled: Callable[[], bool] = never_cancelled,
) -> DocumentText:
    """Read a file, or the bytes of one, in a subprocess, its scanned pages by tesseract where that is installed.

    ``name`` is what the user calls the file; it decides nothing, but a note tells where it contradicts the content.
    Raises ``UnsupportedMedia``-like, ``DocumentError``-like and other permanent errors by their code:
    ``document_type_unsupported``, ``document_type_unknown``, ``document_empty``, ``document_encrypted``,
    ``document_damaged``, ``document_needs_ocr``, ``document_too_many_pages``, ``document_text_too_long``,
    ``document_expands_too_much``, ``document_nested_too_deep``, ``payload_too_large``, ``document_missing``,
    ``reader_timeout``, ``reader_crashed``, ``reader_out_of_memory``, ``cancelled``.
    """
    _check_size(source, settings)
    tesseract = ocr.program()
    limits = replace(Limits.of(settings), ocr=tesseract is not None)
    outcome = run_process(
        child_command(limits),
        source,
        seconds=limits.seconds,
        most_output=_BYTES_AT_LEAST + _BYTES_A_CHARACTER * limits.text_chars,
        cancelled=cancelled,
    )
    if outcome.ending == "timeout":
        raise DocumentError(
            f"Reading the document took longer than {limits.seconds:g} s and was stopped. "
            "Split it, save it anew, or raise CASEMILL_READER_SECONDS.",
            code="reader_timeout",
        )
    if outcome.ending == "cancelled":
        raise Permanent("Reading the document was cancelled.", code="cancelled", status=409)
    if outcome.status == _PROBLEM_STATUS:
        raise _reported(outcome.output)
    if outcome.ending != "exited" or outcome.status != 0:
        raise _crashed(f"status {outcome.status}" if outcome.ending == "exited" else "it wrote without end")
    document = _received(outcome.output)
    if tesseract and document.unread:
        document = ocr.read_scanned(
            source, document, settings, tesseract=tesseract, reading=child_command(limits), cancelled=cancelled
        )
    note = _contradiction(name, document.kind)
    if note is None:
        return document
    return replace(document, notes=(note, *document.notes))


def reader_version(settings: Settings) -> str:
    """What a text depends on beside the bytes of its file: with tesseract, or other languages of it, it is another."""
    return f"{_VERSION} ocr {settings.ocr_languages}" if ocr.program() else _VERSION


def child_command(limits: Limits) -> list[str]:
    """The command line of the reading process."""
    return [sys.executable, "-I", "-X", "utf8", "-c", _BOOTSTRAP, str(_ROOT), limits.to_argument()]


def _check_size(source: Path | bytes, settings: Settings) -> None:
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
    except FileNotFoundError as error:
        raise NotFound("The document's file is gone. Upload it again.", code="document_missing") from error
    if size == 0:
        raise DocumentError("The file is empty.", code="document_empty")
    if size > settings.max_upload_bytes:
        raise PayloadTooLarge(
            f"The file has {size:,} bytes, more than the {settings.max_upload_bytes:,} allowed. "
            "Split it, or raise CASEMILL_MAX_UPLOAD_BYTES."
        )


def _reported(output: bytes) -> CasemillError:
    try:
        return from_problem(json.loads(output))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _crashed("its report cannot be read")


def _received(output: bytes) -> DocumentText:
    """The child's answer, checked: what read an untrusted file is not trusted either."""
    try:
        document = DocumentText.from_json(output)
        document.text.encode()
        ends = [0]
        for page in document.pages:
            ends.extend((page.start, page.end))
        spans = [0]
        for paragraph in document.paragraphs:
            spans.extend((paragraph.start, paragraph.end))
        "".join(document.labels).encode()
        unread = set(document.unread) <= {page.number for page in document.pages}
        named = unread and len(document.labels) in (0, len(document.paragraphs))
        sound = named and all(
            sorted(offsets) == offsets and offsets[-1] <= len(document.text) for offsets in (ends, spans)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _crashed("its answer cannot be read") from error
    if not sound or not document.pages:
        raise _crashed("its answer contradicts itself")
    return document


def _crashed(how: str) -> DocumentError:
    return DocumentError(
        f"The program that reads documents failed on this one ({how}). "
        "Open it, save it anew or print it to PDF, and send that.",
        code="reader_crashed",
    )


def _contradiction(name: str | None, kind: str) -> str | None:
    """A note where the name promises another type than the content is."""
    suffix = PurePath(name).suffix.lower().lstrip(".") if name else ""
    promised = _SUFFIXES.get(suffix)
    if promised is None or promised == kind:
        return None
    return f'The name ends in ".{suffix}", but the content is of type {kind}; it was read as that.'
