"""The alphabet of a playbook: maps text to one byte a character, so that every scan engine reads the same stream.

Characters that no term tells apart share a symbol. White space is one symbol and a run of it is one occurrence, which
is how literals ignore ragged white space. Positions in the stream lead back to exact offsets in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from services.patterns import code_points
from services.playbooks import fold

CODE_POINTS = 0x110000
BREAK = 0
"""Symbol of no character: parts texts that are scanned together."""
WHITE = 1
_SYMBOLS = 256
# Sets whose members are kept: the widest take some 100 KB.
_KEPT = 512
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


def literal_members(char: str) -> Ranges:
    """Code points that fold to the folded character ``char``."""
    return _points(char + _unfolded().get(char, ""))


@cache
def _cuts(classes: bool) -> NDArray[np.uint32]:
    r"""Where what a set takes can change though no character is written there: at letters with case, ``\n \r \t``.

    And where ``\d``, ``\w`` or ``\s`` begin and end, if ``classes``.
    """
    found = {0, *(ord(char) + after for char in ("\n", "\r", "\t", *_cased()) for after in (0, 1))}
    for source in (r"\d", r"\w", r"\s") if classes else ():
        runs = re.finditer(f"{source}{{1,{CODE_POINTS}}}", _all_characters())
        found.update(cut for run in runs for cut in run.span())
    return np.array(sorted(found - {CODE_POINTS}), np.uint32)


@lru_cache(_KEPT)
def pattern_members(source: str) -> Ranges:
    """Code points that the character set ``source`` of a pattern takes under ``IGNORECASE``.

    ``re`` is asked for the first character between two places where the answer can change, not for all 1.1 million.
    """
    if len(source) == 1 and source != "." and source not in _cased():
        return _points(source)
    written = np.array(code_points(source), np.uint32)
    after = np.minimum(written + 1, CODE_POINTS - 1, dtype=np.uint32)
    cuts = np.sort(np.concatenate([_cuts("\\" in source), written, after]), kind="stable")
    firsts = cuts.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    runs = [run.span() for run in re.finditer(f"(?:{source}){{1,{CODE_POINTS}}}", firsts, re.IGNORECASE)]
    ends = [*cuts.tolist(), CODE_POINTS]
    return tuple((ends[start], ends[end]) for start, end in runs)


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
        sets = [pattern_members(r"\s"), *dict.fromkeys(members)]
        bounds = {bound for ranges in sets for pair in ranges for bound in pair}
        self._cuts = np.array(sorted(bounds | {0, CODE_POINTS}))
        # Segments of code points that no set has told apart so far have the same number.
        alike = np.zeros(len(self._cuts) - 1, np.int64)
        numbers = 1
        for ranges in sets:
            inside = self._places(ranges)
            found, split = np.unique(alike[inside], return_inverse=True)
            alike[inside] = numbers + split
            numbers += len(found)
        white = set(alike[self._places(sets[0])].tolist())
        symbol_of: dict[int, int] = dict.fromkeys(white, WHITE)
        own = 2
        for number in alike.tolist():  # ascending code points: the common characters get symbols of their own
            if number not in symbol_of:
                symbol_of[number] = own if own < _OWN else _OWN + (own - _OWN) % (_SYMBOLS - _OWN)
                own += 1
        self.is_shared = own > _OWN
        self._segments = np.array([symbol_of[number] for number in alike.tolist()], np.uint8)
        self.size = 1 + int(self._segments.max())
        self.table: NDArray[np.uint8] = np.repeat(self._segments, np.diff(self._cuts))
        self._low = self.table[:256].tobytes()

    def symbols_of(self, ranges: Ranges) -> frozenset[int]:
        """Every symbol that stands for at least one of the code points."""
        return frozenset(self._segments[self._places(ranges)].tolist())

    def _places(self, ranges: Ranges) -> NDArray[np.int64]:
        """The segments of the code points."""
        bounds = np.searchsorted(self._cuts, np.array(ranges).reshape(-1, 2)).tolist()
        return np.array([place for start, end in bounds for place in range(start, end)], np.int64)

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
