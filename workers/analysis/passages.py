"""The passage around a finding in which a rule of a playbook looks: its sentence, a heading with what follows it."""

from __future__ import annotations

from typing import Final

from services.texts import DocumentText
from workers.analysis.sentences import find_sentences, sentence_at

HEADING_CHARS: Final = 100


class Passages:
    """The passages of one document."""

    def __init__(self, document: DocumentText) -> None:
        self._text = document.text
        self._sentences = find_sentences(document)
        self._starts = [start for start, _ in self._sentences]

    def around(self, start: int, end: int) -> tuple[int, int]:
        """The span of the sentence, or sentences, that ``text[start:end]`` stands in.

        A heading, which is short and ends without a stop, goes on with the sentence after it.
        """
        if not self._sentences:
            return start, end
        row, last = sentence_at(self._starts, start), sentence_at(self._starts, end - 1)
        low, high = self._sentences[row][0], self._sentences[last][1]
        if high - low <= HEADING_CHARS and self._text[high - 1].isalnum() and last + 1 < len(self._sentences):
            high = self._sentences[last + 1][1]
        return min(low, start), max(high, end)
