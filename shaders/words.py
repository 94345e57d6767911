"""Automata of words (Aho and Corasick), level by level with numpy: a hundred thousand words in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ACCEPT = 1 << 31


@dataclass(frozen=True)
class Automaton:
    """``table[row * state + symbol]`` is ``row *`` the next state, with bit 31 where factors end there.

    The factors that end in state ``s`` are ``ends[first[s] : first[s + 1]]`` (numbers into ``ScanPlan.factors``).
    ``overlap`` symbols before any place are enough to be in the right state there.
    """

    table: NDArray[np.uint32]
    row: int
    first: NDArray[np.int64]
    ends: NDArray[np.int32]
    overlap: int


def word_automata(words: Mapping[int, bytes], row: int, cells: int) -> Iterator[Automaton]:
    """Automata of the words by number; each has as many of them, in alphabetical order, as ``cells`` of a table hold.

    Words hold no 0 and symbols below ``row``; one of 200 symbols must fit a table.
    """
    if not words:
        return
    numbers = np.array(sorted(words, key=words.__getitem__), np.int32)
    ordered = [words[number] for number in numbers.tolist()]
    lengths = np.array([len(word) for word in ordered], np.int64)
    longest = int(lengths.max())
    symbols = np.frombuffer(b"".join(word.ljust(longest, b"\0") for word in ordered), np.uint8)
    symbols = symbols.reshape(len(ordered), longest)
    shared = _shared(symbols, lengths)
    # A word adds a state for each symbol that it does not share with the word before.
    states = np.cumsum(lengths - shared)
    start = 0
    while start < len(ordered):
        before = int(states[start] - lengths[start])
        stop = max(start + 1, int(np.searchsorted(states, before + cells // row - 1, side="right")))
        part = slice(start, stop)
        alone = shared[part].copy()
        alone[0] = 0
        yield _build(symbols[part, : int(lengths[part].max())], lengths[part], alone, numbers[part], row)
        start = stop


def _shared(symbols: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many symbols each word has in common with the word before."""
    differs = symbols[1:] != symbols[:-1]
    first = differs.argmax(axis=1).astype(np.int64)
    first[~differs.any(axis=1)] = symbols.shape[1]
    return np.minimum(np.concatenate([np.zeros(1, np.int64), first]), lengths)


def _build(
    symbols: NDArray[np.uint8],
    lengths: NDArray[np.int64],
    shared: NDArray[np.int64],
    numbers: NDArray[np.int32],
    row: int,
) -> Automaton:
    count = 1 + int((lengths - shared).sum())
    following = np.zeros((count, row), np.uint32)
    # Where a state goes on when no word does: the state of the longest end of its own that a word begins with.
    fallback = np.zeros(count, np.int64)
    at = np.zeros(len(lengths), np.int64)  # the state that each word has reached
    levels = [0, 1]
    for depth in range(symbols.shape[1]):
        here = np.flatnonzero(lengths > depth)
        fresh = shared[here] <= depth
        parents, taken = at[here[fresh]], symbols[here[fresh], depth]
        children = np.arange(levels[-1], levels[-1] + len(parents))
        if depth:
            fallback[children] = following[fallback[parents], taken]
        following[parents, taken] = children
        following[children] = following[fallback[children]]
        at[here] = levels[-1] - 1 + np.cumsum(fresh)
        levels.append(levels[-1] + len(parents))

    own = np.bincount(at, minlength=count)
    counts = own.copy()
    for begin, end in pairwise(levels[1:]):
        counts[begin:end] += counts[fallback[begin:end]]
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    ends = np.zeros(int(first[-1]), np.int32)
    order = np.argsort(at, kind="stable")
    ends[first[at[order]] + _running(own)] = numbers[order]
    for begin, end in pairwise(levels[1:]):
        states = np.arange(begin, end)
        inherited = counts[fallback[states]]
        within = _running(inherited)
        ends[np.repeat(first[states] + own[states], inherited) + within] = ends[
            np.repeat(first[fallback[states]], inherited) + within
        ]
    accepting = np.where(counts > 0, np.uint32(ACCEPT), np.uint32(0))
    table = (following * np.uint32(row) | accepting[following]).ravel()
    return Automaton(table, row, first, ends, overlap=symbols.shape[1] - 1)


def _running(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2 … for each of the counts, one after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
