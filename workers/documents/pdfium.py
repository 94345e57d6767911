"""The one typed door to PDFium: opens a PDF and gives each page's characters with the boxes of its lines."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from services.errors import DocumentError
from workers.documents.limits import MAX_PICTURE_BYTES, damaged

_pdfium: Any = importlib.import_module("pypdfium2")
_raw: Any = importlib.import_module("pypdfium2.raw")

_SPACES = frozenset(map(ord, "\t\n\r\f\v \u00a0\u200b\ufeff")) | {0}


Box = tuple[float, float, float, float]
"""Left, bottom, right, top in points, y upwards."""

PICTURE_DPI = 300

HYPHEN_MARKS = (0xFFFE, 0x02)
"""What PDFium puts for a hyphen at a line's end, the line end behind it dropped; 2 in older versions."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a page as PDFium parts them: its text without line end, the box where it starts and where it ends.

    The boxes differ in height where a word broken at the line's end makes PDFium join two lines or more.
    They are None where no character of the line is visible.
    """

    text: str
    start: Box | None = None
    end: Box | None = None


@dataclass(frozen=True, slots=True)
class PageContent:
    """One page: its lines, and the part of its area, 0 to 1, that its largest image covers."""

    lines: tuple[Line, ...]
    image_area: float
    objects: int


class Pdf:
    """An open PDF."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self.pages = len(document)
        self._has_form: bool = document.get_formtype() != _raw.FORMTYPE_NONE

    def page(self, index: int, sparse: int) -> PageContent:
        """The content of page ``index``, from 0; images are looked at where it has fewer than ``sparse`` characters.

        Raises ``document_damaged`` where PDFium cannot load the page.
        """
        try:
            page = self._document[index]
            if self._has_form:
                # What was filled in belongs to the fields, not to the page, until it is flattened into it.
                page.flatten()
                page.close()
                page = self._document[index]
            text_page = page.get_textpage()
        except _pdfium.PdfiumError as error:
            raise damaged(f"Page {index + 1} of the PDF is broken.") from error
        try:
            lines = tuple(_lines(text_page))
            objects, area = (0, 0.0)
            if sum(len(line.text) for line in lines) < sparse:
                objects, area = _images(page)
            return PageContent(lines, area, objects)
        finally:
            text_page.close()
            page.close()

    def picture(self, index: int) -> bytes:
        """Page ``index``, from 0, in shades of grey: a binary PGM. Raises ``document_damaged``."""
        try:
            page = self._document[index]
            width, height = page.get_size()
            scale = min(PICTURE_DPI / 72, (0.95 * MAX_PICTURE_BYTES / max(1.0, width * height)) ** 0.5)
            bitmap = page.render(scale=scale, grayscale=True)
        except _pdfium.PdfiumError as error:
            raise damaged(f"Page {index + 1} of the PDF is broken.") from error
        points = memoryview(bitmap.buffer).cast("B")
        rows = (
            points[start : start + bitmap.width] for start in range(0, bitmap.stride * bitmap.height, bitmap.stride)
        )
        return b"P5 %d %d 255\n" % (bitmap.width, bitmap.height) + b"".join(rows)

    def attachments(self) -> int:
        """How many files are embedded in the PDF."""
        return max(0, self._document.count_attachments())


@contextmanager
def open_pdf(data: bytes) -> Generator[Pdf]:
    """Open a PDF with the empty password. Raises ``document_encrypted`` and ``document_damaged``."""
    try:
        document = _pdfium.PdfDocument(data)
    except _pdfium.PdfiumError as error:
        if error.err_code in (_raw.FPDF_ERR_PASSWORD, _raw.FPDF_ERR_SECURITY):
            raise DocumentError(
                "The PDF is encrypted and asks for a password. Open it with the password, save it without one "
                "and send it again.",
                code="document_encrypted",
            ) from error
        raise damaged("The PDF is cut off or broken.") from error
    try:
        if len(document) == 0:
            raise damaged("The PDF has no pages that can be found.")
        if document.get_formtype() != _raw.FORMTYPE_NONE:
            document.init_forms()
        yield Pdf(document)
    finally:
        document.close()


def _lines(text_page: Any) -> Iterator[Line]:
    unicode_at: Any = _raw.FPDFText_GetUnicode
    handle = text_page.raw
    count = int(_raw.FPDFText_CountChars(handle))
    codes: list[int] = []
    first = 0
    for index in range(count + 1):
        code = unicode_at(handle, index) if index < count else 10
        if code == 10:
            if codes and codes[-1] == 13:
                codes.pop()
            if codes or index < count:
                yield Line(_string(codes), *_boxes(handle, codes, first))
            codes = []
            first = index + 1
        else:
            codes.append(code)


def _string(codes: list[int]) -> str:
    # PDFium hands out UTF-16 units on some systems; halves that do not pair up become U+FFFD.
    text = "".join(map(chr, codes))
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _boxes(handle: Any, codes: list[int], first: int) -> tuple[Box | None, Box | None]:
    visible = [index for index, code in enumerate(codes) if code not in _SPACES]
    if not visible:
        return None, None
    rect = _raw.FS_RECTF()
    found: list[Box] = [
        (rect.left, rect.bottom, rect.right, rect.top)
        for index in (visible[0], visible[-1])
        if _raw.FPDFText_GetLooseCharBox(handle, first + index, ctypes.byref(rect))
    ]
    if len(found) < 2:
        return None, None
    start, end = found
    if not any(code in HYPHEN_MARKS for code in codes):
        # One line: a raised or small sign at either end must not look like a line of its own.
        bottom, top = min(start[1], end[1]), max(start[3], end[3])
        start, end = (start[0], bottom, start[2], top), (end[0], bottom, end[2], top)
    return start, end


def _images(page: Any) -> tuple[int, float]:
    """How many objects stand on the page, and the part of its area that the largest image covers."""
    width, height = page.get_size()
    largest = 0.0
    count = 0
    for item in page.get_objects(max_depth=4):
        count += 1
        if item.type == _raw.FPDF_PAGEOBJ_IMAGE:
            left, bottom, right, top = item.get_bounds()
            largest = max(largest, (right - left) * (top - bottom) / max(1.0, width * height))
        if count >= 2000:
            break
    return count, min(1.0, largest)
