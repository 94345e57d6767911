"""Chooses the reader by the content of a file; runs in the reading process, see :mod:`workers.documents.child`."""

from __future__ import annotations

from dataclasses import replace

from services.errors import DocumentError
from services.texts import DocumentText
from workers.documents.assembly import Draft, assemble
from workers.documents.limits import Limits
from workers.documents.sniff import sniff


def read_bytes(data: bytes, limits: Limits) -> DocumentText:
    """Read a file of any kind that :func:`sniff` names.

    Raises ``UnsupportedMedia`` and ``DocumentError`` with the codes that the readers document.
    """
    kind = sniff(data)
    if kind == "eml":
        from workers.documents.eml import read_eml

        # Pages of an attachment are no pages of the message, so nobody could put their text in afterwards.
        draft = read_eml(data, replace(limits, ocr=False), read_file)
    else:
        draft = read_file(kind, data, limits)
    limits.check_chars(draft.chars)
    limits.check_pages(len(draft.pages))
    if not any(page.strip() for page in draft.pages) and not draft.unread:
        raise DocumentError("The document holds no text.", code="document_empty")
    return assemble(draft)


def read_file(kind: str, data: bytes, limits: Limits) -> Draft:
    """Read a file of one kind, e-mail apart. Readers are imported when needed: the process reads one file."""
    if kind == "pdf":
        from workers.documents.pdf import read_pdf

        return read_pdf(data, limits)
    if kind == "docx":
        from workers.documents.docx import read_docx

        return read_docx(data, limits)
    if kind == "html":
        from workers.documents.html import read_html

        return read_html(data, limits)
    if kind == "rtf":
        from workers.documents.rtf import read_rtf

        return read_rtf(data, limits)
    if kind == "jsonl":
        from workers.documents.jsonl import read_jsonl

        return read_jsonl(data, limits)
    from workers.documents.txt import read_txt

    return read_txt(data, limits)
