"""The alphabet of a playbook: maps text to one byte a character, so that every scan engine reads the same stream.

Characters that no term tells apart share a symbol. White space is one symbol and a run of it is one occurrence, which
is how literals ignore ragged white space. Positions in the stream lead back to exact offsets in the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from services.playbooks import fold

CODE_POINTS = 0x110000
BREAK = 0
"""Symbol of no character: parts texts that are scanned together."""
WHITE = 1
_SYMBOLS = 256
_OWN = 200  # symbols that stand for one class of characters alone; the rest is shared where a playbook needs more

Ranges = tuple[tuple[int, int], ...]
"""Code points as sorted half-open ranges."""

# Where letters with case are: everything but the big blocks of ideographs, Hangul and surrogates.
_CASED_BLOCKS = ((0, 0x3400), (0xA000, 0xAC00), (0xF900, 0x20000))


@cache
def _all_characters() -> str:
    return "".join(map(chr, range(CODE_POINTS)))


@cache
def _cased() -> str:
    chars = (chr(code) for start, end in _CASED_BLOCKS for code in range(start, end))
    return "".join(char for char in chars if char.lower() != char or char.upper() != char)


@cache
def _unfolded() -> dict[str, str]:
    """Folded character → the other characters that fold to it."""
    found: dict[str, str] = {}
    for char in _cased():
        if (folded := fold(char)) != char:
            found[folded] = found.get(folded, "") + char
    return found


def _points(chars: Iterable[str]) -> Ranges:
    return tuple((code, code + 1) for code in sorted({ord(char) for char in chars}))


@cache
def literal_members(char: str) -> Ranges:
    """Code points that fold to the folded character ``char``."""
    return _points(char + _unfolded().get(char, ""))


@cache
def pattern_members(source: str) -> Ranges:
    """Code points that the character set ``source`` of a pattern takes under ``IGNORECASE``."""
    if (len(source) == 1 and source != ".") or (len(source) == 2 and not source[1].isalnum()):
        return _points([source[-1], *re.findall(source, _cased(), re.IGNORECASE)])
    runs = re.finditer(f"(?:{source}){{1,{CODE_POINTS}}}", _all_characters(), re.IGNORECASE)
    return tuple(run.span() for run in runs)


@dataclass(frozen=True, slots=True)
class Stream:
    """A text in symbols; ``removed[k]`` is the place in the stream where the ``k``-th dropped blank would stand."""

    symbols: NDArray[np.uint8]
    removed: NDArray[np.int64]

    def offsets(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Offsets in the text of places in the stream."""
        return places + np.searchsorted(self.removed, places, side="right")


class Alphabet:
    """The symbols that tell apart whatever ``members`` tell apart; where it ``is_shared`` there are too few."""

    def __init__(self, members: Iterable[Ranges]) -> None:
        sets = list(dict.fromkeys(members))
        white = pattern_members(r"\s")
        cuts = sorted({0, CODE_POINTS, *(cut for ranges in [white, *sets] for pair in ranges for cut in pair)})
        masks = [0] * (len(cuts) - 1)
        for bit, ranges in enumerate([*sets, white]):
            for start, end in ranges:
                for segment in range(bisect_left(cuts, start), bisect_left(cuts, end)):
                    masks[segment] |= 1 << bit
        white_bit = 1 << len(sets)
        symbol_of: dict[int, int] = {}
        for mask in masks:  # ascending code points: the common characters get symbols of their own
            if mask not in symbol_of and not mask & white_bit:
                own = 2 + len(symbol_of)
                symbol_of[mask] = own if own < _OWN else _OWN + (own - _OWN) % (_SYMBOLS - _OWN)
        self.is_shared = len(symbol_of) > _OWN - 2
        self._cuts = cuts
        self._segments = [WHITE if mask & white_bit else symbol_of[mask] for mask in masks]
        self.size = 1 + max(self._segments)
        lengths = np.diff(np.array(cuts, np.int64))
        self.table: NDArray[np.uint8] = np.repeat(np.array(self._segments, np.uint8), lengths)
        self._low = self.table[:256].tobytes()

    def symbols_of(self, ranges: Ranges) -> frozenset[int]:
        """Every symbol that stands for at least one of the code points."""
        return frozenset(
            self._segments[segment]
            for start, end in ranges
            for segment in range(bisect_left(self._cuts, start), bisect_left(self._cuts, end))
        )

    def encode(self, text: str) -> Stream:
        """``text`` in symbols; lone surrogates are characters like any other."""
        if text.isascii():
            symbols = np.frombuffer(text.encode("ascii").translate(self._low), np.uint8)
        else:
            codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
            # Most characters are among the first 256 and need no look into the large table.
            symbols = np.frombuffer(bytearray(codes.astype(np.uint8).tobytes().translate(self._low)), np.uint8)
            far = np.flatnonzero(codes > 255)
            symbols[far] = self.table[codes[far]]
        white = symbols == WHITE
        repeated = np.flatnonzero(white[1:] & white[:-1]) + 1
        if len(repeated):
            keep = np.ones(len(symbols), np.bool_)
            keep[repeated] = False
            symbols = symbols[keep]
        return Stream(symbols, repeated - np.arange(len(repeated)))
