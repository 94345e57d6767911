"""Sentences of a contract: the units that steps ``context`` and ``embed`` turn into vectors and ``clauses`` scores.

A sentence may go on over a page or an odd blank line; lists are parted at their semicolons, since a clause is often one
item of a list. Trained weights rest on these borders: whoever changes them trains the heads anew.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from services.texts import DocumentText

VERSION: Final = "3"
"""Raise when the same text is parted otherwise: it is in the version of all that rests on sentences."""
LEAST: Final = 3
MOST: Final = 1500
"""Characters of a sentence, a line end being one: shorter ones say nothing, longer ones are parted at white space."""

_BORDER: Final = re.compile(
    r"""(?P<stop>(?<=[.!?])["”’')\]]*+)(?P<blank>\s++)(?=["“‘'(\[]*+[A-ZÀ-ÖØ-Þ0-9])"""
    r"""|(?P<item>;)\s++"""
    r"""|(?<!["”’')\]])["”’')\]]*+\n\s*\n\s*+"""  # a run of closing signs is tried once, from its start
)
# What a full stop belongs to without ending a sentence: abbreviations, initials, numbers of sections.
_ABBREVIATION: Final = re.compile(
    r"(?:\b(?:Inc|Corp|Co|Ltd|Nos?|Sect?|Art|Mr|Mrs|Ms|Dr|St|vs|e\.g|i\.e|etc|L\.L\.C|U\.S|pp|Exh?|Vol|Approx|Dept|Est"
    r"|Jr|Sr|Attn|Cal|Del|Bros|Messrs|viz|cf|al|art|sect?|nos?|[Pp]ara)"
    r"|\b[A-Za-z]|\b\d{1,3}(?:\.\d{1,3}){0,5}|\b[ivxIVX]{1,5})\Z"
)
_LOOK_BACK: Final = 24


def find_sentences(document: DocumentText) -> list[tuple[int, int]]:
    """Offsets of the sentences in order, without the white space around them; they do not overlap.

    Line ends are alike, whether LF, CR or both: the same words have the same sentences.
    """
    text = document.text
    if "\r" not in text:
        return _sentences(text)
    # From each of these offsets on, one character more was left out.
    pairs = [pair.start() + 1 - number for number, pair in enumerate(re.finditer("\r\n", text))]
    found = _sentences(text.replace("\r\n", "\n").replace("\r", "\n"))
    return [(start + bisect_right(pairs, start), end + bisect_right(pairs, end)) for start, end in found]


def _sentences(text: str) -> list[tuple[int, int]]:
    """The sentences of a text whose lines end in LF."""
    found: list[tuple[int, int]] = []
    start = 0
    for border in _BORDER.finditer(text):
        if (cut := _cut(text, border)) is not None:
            found.extend(_stripped(text, start, cut))
            start = border.end()
    found.extend(_stripped(text, start, len(text)))
    return found


def sentence_at(starts: list[int], offset: int) -> int:
    """Index of the sentence in which ``offset`` stands or after which it follows; ``starts`` of all, in order."""
    return max(0, bisect_right(starts, offset) - 1)


def _cut(text: str, border: re.Match[str]) -> int | None:
    """Where the sentence before ``border`` ends, unless it goes on behind it."""
    if border["item"]:
        return border.start() + 1
    if border["stop"] is not None:
        stop = border.start() - 1
        goes_on = text[stop] == "." and border["blank"].count("\n") < 2
        if goes_on and _ABBREVIATION.search(text[max(0, stop - _LOOK_BACK) : stop]):
            return None
        return border.end("stop")
    before, after = text[max(0, border.start() - 1) : border.start()], text[border.end() : border.end() + 1]
    return None if after.islower() and before not in ".:;!?" else border.start()


def _stripped(text: str, left: int, right: int) -> Iterator[tuple[int, int]]:
    """The stretch without white space at its ends, in parts of at most ``MOST`` characters."""
    while left < right and text[left].isspace():
        left += 1
    while right - left > MOST:
        cut = text.rfind(" ", left + MOST // 2, left + MOST)
        cut = cut if cut > 0 else left + MOST
        yield from _stripped(text, left, cut)
        left = cut
        while left < right and text[left].isspace():
            left += 1
    while right > left and text[right - 1].isspace():
        right -= 1
    if right - left >= LEAST:
        yield left, right
