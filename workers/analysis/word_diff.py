"""The words that differ between two versions of one clause, as spans in both; bounded on any text."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, Literal

WordKind = Literal["removed", "added", "replaced"]

# Equal pairs of words that difflib may look at: more are found in repetitive or very long texts alone.
MAX_PAIRS: Final = 100_000

# Word processors change the form of quotation marks and dashes; that is no change of the text.
_FORMS: Final = str.maketrans(
    dict.fromkeys("‘’‚′", "'") | dict.fromkeys("“”„″«»", '"') | dict.fromkeys("–—−‐‑", "-"),
)
_TOKEN = re.compile(r"\w+|[^\w\s]")
_KINDS: Final[dict[str, WordKind]] = {"delete": "removed", "insert": "added", "replace": "replaced"}

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Token:
    """A word or a sign, in its plain form, with its place in the document's text."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class WordChange:
    """Words that differ; an empty span says where the other side's words would stand."""

    kind: WordKind
    before: Span
    after: Span


def tokens(text: str, start: int, end: int) -> list[Token]:
    """Words and signs of ``text[start:end]``; white space parts them and says nothing else."""
    return [Token(match[0].translate(_FORMS), *match.span()) for match in _TOKEN.finditer(text, start, end)]


def word_changes(before: list[Token], after: list[Token]) -> list[WordChange]:
    """Where two clauses differ, in order.

    Where their inner parts have more equal pairs than :data:`MAX_PAIRS`, those parts are one replacement.
    """
    one, other = [token.text for token in before], [token.text for token in after]
    shortest = min(len(one), len(other))
    head = next((at for at in range(shortest) if one[at] != other[at]), shortest)
    rest = shortest - head
    tail = next((at for at in range(rest) if one[-1 - at] != other[-1 - at]), rest)
    inner, inner_other = one[head : len(one) - tail], other[head : len(other) - tail]
    if not inner and not inner_other:
        return []
    counts = Counter(inner_other)
    pairs = sum(count * counts[text] for text, count in Counter(inner).items())
    if pairs > MAX_PAIRS:
        codes = [("replace", 0, len(inner), 0, len(inner_other))]
    else:
        codes = SequenceMatcher(None, inner, inner_other, autojunk=False).get_opcodes()
    return [
        WordChange(
            _KINDS[code],
            _span(before, head + first, head + last),
            _span(after, head + first_other, head + last_other),
        )
        for code, first, last, first_other, last_other in codes
        if code != "equal"
    ]


def _span(clause: list[Token], first: int, last: int) -> Span:
    if first < last:
        return clause[first].start, clause[last - 1].end
    place = clause[first - 1].end if first else clause[0].start if clause else 0
    return place, place
