"""The sentence around a span: where a rule of a playbook looks, bounded by its paragraph."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from services.texts import DocumentText

REACH: Final = 2000
"""Characters to each side of a span that are looked at; a longer sentence is cut there."""
HEADING_CHARS: Final = 100
_END: Final = re.compile(r"[.!?][\"'”’»)\]]{0,2}\s+(?=[\"'“‘«(\[]?[^\W_a-zà-ÿ])")
_BEFORE: Final = re.compile(r"[\w.&]+$")
# fmt: off
_ABBREVIATED: Final = frozenset((
    "no", "nos", "art", "arts", "sec", "sect", "cl", "para", "inc", "ltd", "co", "corp", "llc", "plc", "dept", "approx",
    "est", "mr", "mrs", "ms", "dr", "prof", "st", "vs", "cf", "nr", "abs", "ziff", "bzw", "ca", "usw", "gem", "str",
))
# fmt: on


class Sentences:
    """Finds sentences in a document."""

    def __init__(self, document: DocumentText) -> None:
        self._text = document.text
        self._paragraphs = document.paragraphs
        self._starts = [paragraph.start for paragraph in document.paragraphs]

    def around(self, start: int, end: int) -> tuple[int, int]:
        """The span of the sentence, or sentences, that ``text[start:end]`` stands in, without white space around it.

        A heading that is a paragraph of its own goes on with the first sentence of the next paragraph.
        """
        row = bisect_right(self._starts, start) - 1
        inside = row >= 0 and start < self._paragraphs[row].end
        if not inside:
            return self._sentence(start, end, 0, len(self._text))
        paragraph = self._paragraphs[row]
        first, last = self._sentence(start, end, paragraph.start, max(paragraph.end, end))
        heads = (first, last) == (paragraph.start, paragraph.end) and last - first <= HEADING_CHARS
        if heads and self._text[last - 1].isalnum() and row + 1 < len(self._paragraphs):
            following = self._paragraphs[row + 1]
            last = self._sentence(following.start, following.start + 1, following.start, following.end)[1]
        return first, last

    def _sentence(self, start: int, end: int, low: int, high: int) -> tuple[int, int]:
        """The sentence of ``text[start:end]`` inside ``text[low:high]``."""
        low, high = max(low, start - REACH), min(high, end + REACH)
        first, last = low, high
        for match in _END.finditer(self._text, low, high):
            if self._abbreviated(low, match.start()):
                continue
            if match.end() <= start:
                first = match.end()
            elif match.start() >= end - 1:
                last = match.end()
                break
        passage = self._text[first:last]
        return first + len(passage) - len(passage.lstrip()), first + len(passage.rstrip())

    def _abbreviated(self, low: int, dot: int) -> bool:
        """Whether the dot belongs to an abbreviation, an initial, or the number of a clause at its head."""
        if self._text[dot] != ".":
            return False
        found = _BEFORE.search(self._text, max(low, dot - 20), dot)
        if found is None:
            return False
        word = found[0].lower()
        letters = word.replace(".", "")
        head = not self._text[low : found.start()].strip()
        return (
            letters in _ABBREVIATED
            or (len(letters) == 1 and letters.isalpha())
            or "." in word
            or (head and letters.isdigit())
        )
