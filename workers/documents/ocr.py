"""Reads the scanned pages of a PDF by tesseract: the reading process draws each page, tesseract gets the picture alone.

Both run under a time limit and end with this call; the file that is not trusted never reaches tesseract.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.errors import DocumentError, Permanent
from services.settings import Settings
from services.texts import DocumentText
from workers.documents.assembly import Draft, assemble
from workers.documents.limits import MAX_PICTURE_BYTES, Limits
from workers.documents.page_numbers import pages_are
from workers.documents.sandbox import run_process

_MOST_OUTPUT: Final = 16 << 20
_WORD_LEVEL: Final = "5"


@dataclass(frozen=True, slots=True)
class Recognised:
    """The text of a page and how sure tesseract is of each of its words, 0 to 100."""

    text: str
    confidences: tuple[float, ...]


def program() -> str | None:
    """Where tesseract is installed, if it is."""
    return shutil.which("tesseract")


def read_scanned(
    source: Path | bytes,
    document: DocumentText,
    settings: Settings,
    *,
    tesseract: str,
    reading: Sequence[str],
    cancelled: Callable[[], bool],
) -> DocumentText:
    """``document`` with the text of its ``unread`` pages and notes that say so; ``reading`` starts the reading process.

    A page that cannot be read stays in ``unread`` and is noted. Raises ``document_needs_ocr`` where that leaves no
    text, ``document_empty`` where tesseract finds none, ``document_text_too_long`` and ``cancelled``.
    """
    pages = [document.text[page.start : page.end] for page in document.pages]
    read: dict[int, Recognised] = {}
    for number in document.unread:
        picture = _run([*reading, str(number)], source, settings, MAX_PICTURE_BYTES, cancelled)
        found = _recognise(picture, tesseract, settings, cancelled) if picture else None
        if found:
            read[number] = found
            # Over a stamp on a scan, tesseract reads the stamp too.
            if len(found.text) > len(pages[number - 1]):
                pages[number - 1] = found.text
    left = tuple(number for number in document.unread if number not in read)
    if not any(pages):
        raise _nothing(left, settings)
    notes = (*document.notes, *_notes(read, left, settings))
    draft = Draft(document.kind, tuple(pages), notes, unread=left)
    Limits.of(settings).check_chars(draft.chars)
    return assemble(draft)


def parse_words(tsv: str) -> Recognised:
    """The words of tesseract's TSV: a line break between lines, a blank line between paragraphs.

    Raises ``ValueError`` or ``KeyError`` where it is something else.
    """
    text: list[str] = []
    confidences: list[float] = []
    before: tuple[str, ...] = ()
    rows = csv.DictReader(io.StringIO(tsv), delimiter="\t", quoting=csv.QUOTE_NONE)
    if "text" not in (rows.fieldnames or ()):
        raise ValueError("no TSV of tesseract")
    for row in rows:
        word = (row["text"] or "").strip()
        if row["level"] != _WORD_LEVEL or not word:
            continue
        here = (row["block_num"], row["par_num"], row["line_num"])
        if before:
            text.append(" " if here == before else "\n" if here[:2] == before[:2] else "\n\n")
        text.append(word)
        confidences.append(float(row["conf"]))
        before = here
    return Recognised("".join(text), tuple(confidences))


def _recognise(picture: bytes, tesseract: str, settings: Settings, cancelled: Callable[[], bool]) -> Recognised | None:
    command = [tesseract, "stdin", "stdout", "-l", settings.ocr_languages, "tsv"]
    output = _run(command, picture, settings, _MOST_OUTPUT, cancelled)
    try:
        return parse_words(output.decode()) if output else None
    except (ValueError, KeyError):
        return None


def _run(
    command: Sequence[str],
    source: Path | bytes,
    settings: Settings,
    most: int,
    cancelled: Callable[[], bool],
) -> bytes | None:
    """What the command writes about the file, or None where it fails or is late."""
    outcome = run_process(
        command,
        source,
        seconds=settings.ocr_page_seconds,
        most_output=most,
        cancelled=cancelled,
        # More threads on one page are hardly faster, and take cores from the engine beside.
        variables={"OMP_THREAD_LIMIT": "1"},
    )
    if outcome.ending == "cancelled":
        raise Permanent("Reading the document was cancelled.", code="cancelled", status=409)
    return outcome.output if outcome.ending == "exited" and outcome.status == 0 else None


def _notes(read: dict[int, Recognised], left: Sequence[int], settings: Settings) -> list[str]:
    notes: list[str] = []
    if read:
        sure = [confidence for page in read.values() for confidence in page.confidences]
        mean = f"mean confidence {sum(sure) / len(sure):.0f} %" if sure else "no word found"
        notes.append(
            f"{pages_are(sorted(read))} a scan, read by OCR (tesseract, {settings.ocr_languages}; {mean}): "
            "check the wording against the page."
        )
    if left:
        notes.append(f"{pages_are(left)} a scan, not read: OCR failed or took longer than {_limit(settings)}.")
    return notes


def _nothing(left: Sequence[int], settings: Settings) -> DocumentError:
    if left:
        return DocumentError(
            f"The PDF is a scan, and OCR failed or took longer than {_limit(settings)} a page. See that tesseract has "
            f"the languages {settings.ocr_languages} (CASEMILL_OCR_LANGUAGES), or send the result of another OCR.",
            code="document_needs_ocr",
        )
    return DocumentError("The PDF is a scan, and OCR found no text in it.", code="document_empty")


def _limit(settings: Settings) -> str:
    return f"the {settings.ocr_page_seconds:g} s of CASEMILL_OCR_PAGE_SECONDS"
