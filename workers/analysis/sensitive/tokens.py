"""Cuts a text into tokens for the tagger: words, numbers, signs, and each structured datum as one token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from workers.analysis.sensitive.datum import Datum
from workers.analysis.stretches import Check, unchecked, watched

# A word keeps its combining marks, so that é is one letter in either normal form.
_TOKEN = re.compile(r"\d+|[^\W\d_](?:[^\W\d_]|[\u0300-\u036f])*|\S")
BEGIN, END = "\x02", "\x03"
"""Tokens before the first and behind the last of a text."""
NO_GAP, BLANK, COLUMN, NEW_LINE, EMPTY_LINE = range(5)
_KEPT = 40
_EVERY = 1 << 12  # tokens


@dataclass(frozen=True, slots=True)
class Tokens:
    """``keys`` has BEGIN, the tokens and END; ``starts`` and ``ends`` place those between, in code points.

    A key is the digit of the gap before the token and the token, cut at 40 characters; a structured datum's is its
    type in angle brackets.
    """

    keys: list[str]
    starts: list[int]
    ends: list[int]


def tokenize(text: str, structured: Sequence[Datum], check: Check = unchecked) -> Tokens:
    """The tokens of ``text``, which has the data ``structured``, in order of place."""
    tokens = Tokens([f"{EMPTY_LINE}{BEGIN}"], [], [])
    gaps: dict[str, int] = {"": NO_GAP, " ": BLANK}
    place = 0
    for datum in structured:
        gap = _cut(text, place, datum.start, tokens, gaps, check)
        tokens.keys.append(f"{_gap(gap, gaps)}<{datum.type}>")
        tokens.starts.append(datum.start)
        tokens.ends.append(datum.end)
        place = datum.end
    _cut(text, place, len(text), tokens, gaps, check)
    tokens.keys.append(f"{EMPTY_LINE}{END}")
    return tokens


def _cut(text: str, start: int, end: int, tokens: Tokens, gaps: dict[str, int], check: Check) -> str:
    """Adds the tokens of ``text[start:end]`` and answers the white space behind the last."""
    last = start
    for match in watched(_TOKEN.finditer(text, start, end), check, every=_EVERY):
        begin = match.start()
        gap = text[last:begin]
        last = match.end()
        tokens.keys.append(f"{gaps[gap] if gap in gaps else _gap(gap, gaps)}{text[begin : min(last, begin + _KEPT)]}")
        tokens.starts.append(begin)
        tokens.ends.append(last)
    return text[last:end]


def _gap(gap: str, gaps: dict[str, int]) -> int:
    if gap not in gaps:
        lines = gap.count("\n")
        kind = EMPTY_LINE if lines > 1 else NEW_LINE if lines else COLUMN if len(gap) > 2 or "\t" in gap else BLANK
        if len(gap) > 64:  # a long one is not worth keeping
            return kind
        gaps[gap] = kind
    return gaps[gap]
