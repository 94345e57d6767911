"""Reads plain text: the characters as they stand, so that offsets into the file hold; form feeds part its pages."""

from __future__ import annotations

from workers.documents.assembly import PAGE_BREAK, Draft
from workers.documents.decoding import decode, guess_note
from workers.documents.limits import Limits, damaged


def read_txt(data: bytes, limits: Limits) -> Draft:
    """Decode ``data``; line ends and white space stay."""
    decoded = decode(data)
    if decoded is None:
        raise damaged("The text holds bytes that are not text.")
    limits.check_chars(len(decoded.text))
    # Printers' form feeds at the very end open no page.
    text = decoded.text
    pages = text.split(PAGE_BREAK)
    if len(pages) > 1 and not pages[-1].strip():
        pages[-2:] = [pages[-2] + PAGE_BREAK + pages[-1]]
    limits.check_pages(len(pages))
    return Draft("txt", tuple(pages), guess_note(decoded))
