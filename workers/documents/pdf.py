"""Reads the text layer of PDFs: the text of each page, parted into paragraphs; names pages that need OCR."""

from __future__ import annotations

from services.errors import DocumentError
from workers.documents.assembly import Draft
from workers.documents.limits import Limits, damaged
from workers.documents.page_numbers import pages_are
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

    With ``limits.ocr`` the draft's ``unread`` names the pages whose image somebody else reads; else they are noted.

    Raises ``document_encrypted``, ``document_damaged``, ``document_too_many_pages``, ``document_text_too_long``,
    ``document_needs_ocr`` where no page has text and none is left to OCR, ``document_empty`` where pages hold nothing.
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
        if not (drawn and limits.ocr):
            raise _without_text(len(texts), drawn)
        without_text = without_text or list(range(1, len(texts) + 1))
    unread = tuple(sorted(without_text + stamped)) if limits.ocr else ()
    notes = _notes([] if unread else without_text, [] if unread else stamped, attachments)
    hyphens = Hyphens(texts)
    return Draft("pdf", tuple(map(hyphens.mend, texts)), tuple(notes), unread=unread)


def draw_page(data: bytes, number: int) -> bytes:
    """Page ``number``, from 1, as a picture: see :meth:`Pdf.picture`."""
    start = data.find(b"%PDF-")
    with open_pdf(data[start:] if start > 0 else data) as pdf:
        return pdf.picture(number - 1)


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
        f"The PDF is a scan: {which} any text. Run it through OCR (text recognition) and "
        "send the result, or install tesseract on the machines of the workers that read documents.",
        code="document_needs_ocr",
    )


def _notes(without_text: list[int], stamped: list[int], attachments: int) -> list[str]:
    notes: list[str] = []
    if without_text:
        notes.append(f"{pages_are(without_text)} without a text layer, not read: OCR is needed.")
    if stamped:
        notes.append(f"{pages_are(stamped)} mostly an image; only the little text over it was read.")
    if attachments:
        notes.append(f"{attachments} files are embedded in the PDF and were not read.")
    return notes
