"""Builds the :class:`DocumentText` from what a reader found: joins pages and finds the paragraphs by exact offsets.

Pages are joined by one form feed (U+000C), so that a text saved as a file and read again has the same pages.
Paragraphs are what later steps embed as clauses: units of some 20 to 1,500 characters that never leave their page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from services.texts import DocumentText, Page, Paragraph

PAGE_BREAK = "\f"
MOST = 1500
LEAST = 20
# A line longer than any that a person or program would wrap: then each line is a paragraph of its own.
UNWRAPPED = 300

# Possessive, so that millions of blank lines need no memory to come back to.
_BLANK = re.compile(r"(?:\r\n|[\n\r\u2029])[^\S\r\n]*+(?:(?:\r\n|[\n\r])[^\S\r\n]*+)++")
_LINE = re.compile(r"\r\n|[\n\r\u2028\u2029]")
_SENTENCE = re.compile(r"""[.!?;:]["'”’)\]]*\s+(?=["'“‘(\[]?[A-Z0-9À-Þ(])""")
_SPACE = re.compile(r"\s+")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Draft:
    """What one reader makes of one file: its type, the text of each page, and notes for a person.

    ``spans`` are the paragraphs of a single page where the format says what they are, ``labels`` their names.
    ``unread`` are numbers of pages that OCR is to read.
    """

    kind: str
    pages: tuple[str, ...]
    notes: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    labels: tuple[str, ...] = ()
    unread: tuple[int, ...] = ()

    @property
    def chars(self) -> int:
        """Characters of the assembled text."""
        return sum(map(len, self.pages)) + max(0, len(self.pages) - 1)


def assemble(draft: Draft) -> DocumentText:
    """Join the pages and mark the paragraphs. Lone surrogates become U+FFFD, so the text always encodes to UTF-8."""
    pages: list[Page] = []
    paragraphs: list[Paragraph] = []
    texts = [_SURROGATE.sub("\ufffd", page) for page in draft.pages]
    start = 0
    for number, text in enumerate(texts, 1):
        pages.append(Page(number, start, start + len(text)))
        spans = draft.spans or find_paragraphs(text)
        paragraphs.extend(Paragraph(start + left, start + right) for left, right in spans)
        start += len(text) + len(PAGE_BREAK)
    notes = tuple(_SURROGATE.sub("\ufffd", note) for note in draft.notes)
    labels = tuple(_SURROGATE.sub("\ufffd", label) for label in draft.labels)
    return DocumentText(
        draft.kind, PAGE_BREAK.join(texts), tuple(pages), tuple(paragraphs), notes, labels, draft.unread
    )


def find_paragraphs(text: str) -> list[tuple[int, int]]:
    """Offsets of the paragraphs of one page, in order, apart from each other, together holding all but white space.

    Blank lines part them, and in texts of unwrapped lines each line break. A heading too short to stand alone joins
    what follows it; what is too long is parted at sentence ends.
    """
    pieces: list[tuple[int, int]] = []
    for left, right in _parted(text, _BLANK, 0, len(text)):
        lines = list(_parted(text, _LINE, left, right))
        if any(end - start > UNWRAPPED for start, end in lines):
            pieces.extend(lines)
        elif lines:
            pieces.append((lines[0][0], lines[-1][1]))
    return [part for left, right in _joined(pieces) for part in _cut(text, left, right)]


def _parted(text: str, border: re.Pattern[str], left: int, right: int) -> Iterator[tuple[int, int]]:
    """The stretches of ``text[left:right]`` between borders, stripped of white space, empty ones left out."""
    start = left
    for match in border.finditer(text, left, right):
        yield from _stripped(text, start, match.start())
        start = match.end()
    yield from _stripped(text, start, right)


def _stripped(text: str, left: int, right: int) -> Iterator[tuple[int, int]]:
    piece = text[left:right]
    if inner := piece.strip():
        start = left + len(piece) - len(piece.lstrip())
        yield start, start + len(inner)


def _joined(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Let pieces too short to say anything alone join the next one, the last one the one before it."""
    joined: list[tuple[int, int]] = []
    waiting: int | None = None
    for left, right in pieces:
        start = left if waiting is None else waiting
        waiting = start if right - start < LEAST else None
        if waiting is None:
            joined.append((start, right))
    if waiting is not None:
        end = pieces[-1][1]
        if joined and end - joined[-1][0] <= MOST:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((waiting, end))
    return joined


def _cut(text: str, left: int, right: int) -> Iterator[tuple[int, int]]:
    """Part a piece longer than ``MOST`` at the last sentence end that fits, else at white space, else hard."""
    while right - left > MOST:
        window = left + MOST
        border: re.Match[str] | None = None
        # Only the window and what the lookahead wants behind it: searching on makes borderless texts quadratic.
        for pattern, least in ((_SENTENCE, MOST // 4), (_LINE, MOST // 4), (_SPACE, 1)):
            for match in pattern.finditer(text, left + least, min(right, window + 3)):
                if match.end() > window:
                    break
                border = match
            if border is not None:
                break
        cut = window if border is None else border.end()
        yield from _stripped(text, left, cut)
        left = cut
    yield from _stripped(text, left, right)
