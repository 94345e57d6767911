"""Reads PDFs that have a text layer: the text of each page, parted into paragraphs; names pages that need OCR."""

from __future__ import annotations

from services.errors import DocumentError
from workers.documents.assembly import Draft
from workers.documents.limits import Limits, damaged
from workers.documents.pdf_lines import Hyphens, join_lines
from workers.documents.pdfium import open_pdf

# Fewer characters than this over an image that fills half the page: a stamp on a scan, not the page's text.
_SPARSE = 200
_SCAN_AREA = 0.5
# On a page without any text: an image that may show some, or so many strokes that they may be letters.
_IMAGE_AREA = 0.02
_STROKES = 100


def read_pdf(data: bytes, limits: Limits) -> Draft:
    """Read one PDF; only its text layer and what is filled into its forms, no images.

    Raises ``document_encrypted``, ``document_damaged``, ``document_too_many_pages``, ``document_text_too_long``,
    ``document_needs_ocr`` where no page has text, ``document_empty`` where pages hold nothing at all.
    """
    _check_whole(data)
    start = data.find(b"%PDF-")
    texts: list[str] = []
    without_text: list[int] = []
    stamped: list[int] = []
    drawn = False
    chars = 0
    with open_pdf(data[start:] if start > 0 else data) as pdf:
        limits.check_pages(pdf.pages)
        for index in range(pdf.pages):
            content = pdf.page(index, _SPARSE)
            text = join_lines(content.lines)
            chars += len(text) + 1
            limits.check_chars(chars)
            texts.append(text)
            if not text:
                drawn |= content.objects > 0
                if content.image_area > _IMAGE_AREA or content.objects > _STROKES:
                    without_text.append(index + 1)
            elif content.image_area > _SCAN_AREA:
                stamped.append(index + 1)
        attachments = pdf.attachments()
    if not any(texts):
        raise _without_text(len(texts), drawn)
    hyphens = Hyphens(texts)
    return Draft("pdf", tuple(map(hyphens.mend, texts)), tuple(_notes(without_text, stamped, attachments)))


def _check_whole(data: bytes) -> None:
    """Refuse a file that was cut off, before PDFium mends it and pages go missing without a word.

    Behind the last object of a whole PDF stands ``startxref``.
    """
    if data.rfind(b"startxref") < data.rfind(b"endobj"):
        raise damaged("The PDF is cut off: its end is missing.")


def _without_text(pages: int, drawn: bool) -> DocumentError:
    if not drawn:
        return DocumentError("The PDF has only empty pages.", code="document_empty")
    which = f"none of its {pages} pages has" if pages > 1 else "its one page does not have"
    return DocumentError(
        f"The PDF is a scan: {which} any text. Run it through OCR (text recognition) and send the result.",
        code="document_needs_ocr",
    )


def _notes(without_text: list[int], stamped: list[int], attachments: int) -> list[str]:
    notes: list[str] = []
    if without_text:
        notes.append(f"{_pages(without_text)} without a text layer, not read: OCR is needed.")
    if stamped:
        notes.append(f"{_pages(stamped)} mostly an image; only the little text over it was read.")
    if attachments:
        notes.append(f"{attachments} files are embedded in the PDF and were not read.")
    return notes


def _pages(numbers: list[int]) -> str:
    """Page numbers as a person writes them: ``Pages 2-4 and 9 are``."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    names = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    if len(numbers) == 1:
        return f"Page {names[0]} is"
    return f"Pages {', '.join(names[:-1]) + ' and ' + names[-1] if len(names) > 1 else names[0]} are"
