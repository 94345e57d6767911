"""The shingles of a text as 64-bit hashes, and the exact Jaccard similarity of two such sets.

A word is a match of ``[a-z0-9]+`` in the lower-cased text, a shingle a run of 5 words. Hashes have 64 bits because the
exact similarity is computed on them: two contracts have some ten thousand shingles, among which 32 bits would give a
false match in one pair of a hundred, 64 bits in one pair of 10**11. The hash is the same on every machine and in every
process, so that it can be kept. It is no cryptographic one: who writes a document for it can make shingles collide.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

SHINGLE_WORDS: Final = 5

Hashes = NDArray[np.uint64]

_LANE = 8  # bytes that one number holds; most words are no longer
_LONG_WORD = 64  # bytes; longer ones are rare, and hashed one by one
_BLOCK = 1 << 20  # bytes at a time, so that a huge text needs no more memory for its parts than a small one
_NO_WORD = re.compile(rb"[^0-9A-Za-z]")
_MASKS = np.array([(1 << 8 * kept) - 1 for kept in range(_LANE + 1)], np.uint64)
_FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)  # of SplitMix64
_HALF = np.uint64(32)


def shingles(text: str, *, ignore_numbers: bool = False, tick: Callable[[], None] | None = None) -> Hashes:
    """The distinct shingles of a text, (n,), ascending; none where it has fewer than 5 words.

    ``ignore_numbers`` leaves out every word with a digit: dates, amounts and numbers of clauses, also `1st` and `10b`.
    ``tick`` is called about once a megabyte.
    """
    data = folded(text)
    parts: list[Hashes] = []
    begin = 0
    while begin < len(data):
        if tick:
            tick()
        cut = _NO_WORD.search(data, begin + _BLOCK)
        end = cut.start() if cut else len(data)
        parts.append(_words(data[begin:end], ignore_numbers))
        begin = end
    words = np.concatenate(parts) if parts else np.zeros(0, np.uint64)
    return distinct(_runs(words))


def folded(text: str) -> bytes:
    """UTF-8 whose ASCII letters and digits are those of the lower-cased text, but for the case of the letters."""
    if not text.isascii():
        # Only these two characters beyond ASCII have a lower case within it; all others part words in either case.
        text = text.replace("\u0130", "i\u0307").replace("\u212a", "k")
    return text.encode("utf-8", "surrogatepass")


def distinct(hashes: Hashes) -> Hashes:
    """The same hashes ascending and each once; sorts in place."""
    hashes.sort()
    new = np.ones(len(hashes), np.bool_)
    np.not_equal(hashes[1:], hashes[:-1], out=new[1:])
    return hashes[new]


def jaccard(one: Hashes, other: Hashes) -> float:
    """Size of the intersection ÷ size of the union of two sets as :func:`shingles` gives them, rounded to 6 places.

    Two empty sets have nothing in common: 0.
    """
    both = np.concatenate((one, other))
    both.sort(kind="stable")  # merges the two runs
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return round(shared / (len(both) - shared), 6) if len(both) else 0.0


def _words(data: bytes, ignore_numbers: bool) -> Hashes:
    """A hash a word, in order; the case of ASCII letters makes no difference."""
    padded = np.zeros(1 + len(data) + _LANE, np.uint8)  # a word has a byte before it and a lane after its last byte
    padded[1 : 1 + len(data)] = np.frombuffer(data, np.uint8)
    digits = padded - np.uint8(ord("0")) < 10
    padded |= 0x20  # makes capital letters small, and leaves digits as they are
    inside = padded - np.uint8(ord("a")) < 26
    inside |= digits
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    if ignore_numbers:
        seen = np.cumsum(digits, dtype=np.int64)
        kept = seen[ends - 1] == seen[starts - 1]
        starts, ends = starts[kept], ends[kept]
    lengths = ends - starts
    lanes = np.ndarray((len(padded) - _LANE + 1,), "<u8", padded, strides=(1,))
    words = _mixed(_cut(lanes[starts], lengths))
    for begin in range(_LANE, _LONG_WORD, _LANE):
        longer = np.flatnonzero(lengths > begin)
        if not len(longer):
            return words
        words[longer] = _mixed(words[longer] ^ _cut(lanes[starts[longer] + begin], lengths[longer] - begin))
    for place in np.flatnonzero(lengths > _LONG_WORD):
        digest = hashlib.blake2b(padded[starts[place] : ends[place]].tobytes(), digest_size=8).digest()
        words[place] = int.from_bytes(digest, "little")
    return words


def _cut(lanes: Hashes, lengths: NDArray[np.int64]) -> Hashes:
    """Each lane without the bytes behind the end of its word."""
    return lanes & _MASKS[np.minimum(lengths, _LANE)]


def _runs(words: Hashes) -> Hashes:
    """A hash of every 5 words in a row."""
    count = max(0, len(words) - SHINGLE_WORDS + 1)
    hashes = words[:count].copy()
    for place in range(1, SHINGLE_WORDS):
        hashes *= _FIRST
        hashes += words[place : place + count]
    return _mixed(hashes)


def _mixed(hashes: Hashes) -> Hashes:
    """The hashes, each bit depending on every bit of before; in place, one to one."""
    hashes *= _FIRST
    hashes ^= hashes >> _HALF
    hashes *= _SECOND
    hashes ^= hashes >> _HALF
    return hashes
