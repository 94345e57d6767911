"""The bounds a reader works within; they travel from the worker's settings to the reading process as one argument."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from services.errors import DocumentError

if TYPE_CHECKING:
    from services.settings import Settings

MAX_ATTACHMENT_DEPTH = 3
"""Messages within messages that are followed; what lies deeper is named in a note."""

MAX_PICTURE_BYTES = 40_000_000
"""A page drawn for OCR, a byte a point: A3 has 17 million; larger pages are drawn coarser."""

MAX_ATTACHMENTS = 100
"""Attachments read from one upload, all depths together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one reading: characters of text, pages, bytes unpacked, bytes of memory, seconds.

    ``ocr`` says that scanned pages are named for OCR, where a reader would else refuse or note them.
    """

    text_chars: int
    pages: int
    unpacked_bytes: int
    memory_bytes: int
    seconds: float
    ocr: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The bounds that the settings give."""
        return cls(
            text_chars=settings.max_text_chars,
            pages=settings.max_pages,
            unpacked_bytes=settings.max_unpacked_bytes,
            memory_bytes=settings.reader_memory_bytes,
            seconds=settings.reader_seconds,
        )

    def to_argument(self) -> str:
        """One command-line argument that :meth:`from_argument` reads back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, argument: str) -> Limits:
        """The bounds that :meth:`to_argument` wrote."""
        return cls(**json.loads(argument))

    def check_chars(self, count: int) -> None:
        """Raise ``document_text_too_long`` where ``count`` characters are more than allowed."""
        if count > self.text_chars:
            raise DocumentError(
                f"The document holds more than {self.text_chars:,} characters of text. "
                "Split it, or raise CASEMILL_MAX_TEXT_CHARS.",
                code="document_text_too_long",
            )

    def check_pages(self, count: int) -> None:
        """Raise ``document_too_many_pages`` where ``count`` pages are more than allowed."""
        if count > self.pages:
            raise DocumentError(
                f"The document has {count:,} pages, more than the {self.pages:,} allowed. "
                "Split it, or raise CASEMILL_MAX_PAGES.",
                code="document_too_many_pages",
            )


def damaged(what: str) -> DocumentError:
    """The error of a file that is cut off or broken; ``what`` is a sentence that says where."""
    return DocumentError(
        f"{what} Ask for the file again, or open it and save it anew.",
        code="document_damaged",
    )
