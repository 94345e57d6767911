"""The sentence around a span: where a rule of a playbook looks, bounded by its paragraph."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from services.texts import DocumentText

REACH: Final = 2000
"""Characters to each side of a span that are looked at; a longer sentence is cut there."""
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
        """The span of the sentence, or sentences, that ``text[start:end]`` stands in, without white space around it."""
        row = bisect_right(self._starts, start) - 1
        inside = row >= 0 and start < self._paragraphs[row].end
        low = max(self._paragraphs[row].start if inside else 0, start - REACH)
        high = min(max(self._paragraphs[row].end, end) if inside else len(self._text), end + REACH)
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
