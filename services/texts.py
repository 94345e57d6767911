"""The text of a document as every step sees it: characters, pages and paragraphs by exact offsets.

Offsets count Unicode code points from 0, ``end`` exclusive, so ``text[start:end]`` is the span in Python.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, slots=True)
class Page:
    """One page; formats without pages have a single one that spans the text. ``number`` counts from 1."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One paragraph, without the white space around it; paragraphs do not overlap and stand in order."""

    start: int
    end: int


@dataclass(frozen=True)
class DocumentText:
    """What a reader makes of a document.

    ``kind`` is the type found in the content (``pdf``, ``docx``, ``eml``, ``rtf``, ``html``, ``txt``, ``jsonl``).
    ``notes`` tell a person what the reader saw and could not take along (an attachment of an unknown type, say).
    ``labels`` name the paragraphs of a clause bank (``jsonl``), in their order; other documents have none.
    ``unread`` are numbers of scanned pages whose text is missing although OCR was tried.
    """

    kind: str
    text: str
    pages: tuple[Page, ...]
    paragraphs: tuple[Paragraph, ...]
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    unread: tuple[int, ...] = ()

    @cached_property
    def _page_starts(self) -> list[int]:
        return [page.start for page in self.pages]

    def page_at(self, offset: int) -> int:
        """Number of the page on which the character at ``offset`` stands."""
        return self.pages[max(0, bisect_right(self._page_starts, offset) - 1)].number

    def to_json(self) -> bytes:
        """UTF-8 JSON that :meth:`from_json` reads back equal."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> DocumentText:
        """The document text that :meth:`to_json` wrote."""
        raw: dict[str, Any] = json.loads(data)
        return cls(
            kind=raw["kind"],
            text=raw["text"],
            pages=tuple(Page(**page) for page in raw["pages"]),
            paragraphs=tuple(Paragraph(**paragraph) for paragraph in raw["paragraphs"]),
            notes=tuple(raw["notes"]),
            labels=tuple(raw.get("labels", ())),
            unread=tuple(raw.get("unread", ())),
        )
