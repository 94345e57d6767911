"""What the engines search for: each term of a playbook reduced to short sequences of symbol sets, its factors.

Wherever a term matches, one of its factors stands at a known distance from the match's start, so that an engine that
finds every factor misses nothing; the host then looks at the term itself in that place. A literal is its own factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from services.patterns import (
    Boundary,
    Chars,
    Choice,
    Node,
    Pattern,
    Repeat,
    characters,
    lengths,
    names_text,
    white_members,
)
from services.patterns import Sequence as InOrder
from services.playbooks import Literal, Playbook, canonical
from shaders.alphabet import WHITE, Alphabet, literal_members, pattern_members
from shaders.literals import LiteralTable

Sets = tuple[frozenset[int], ...]

_WHITE = frozenset({WHITE})
_LONGEST = 12  # symbols of a pattern's factor; longer ones are no rarer and make the tables larger
_COPIES = 12  # of a repeated group that are written out

# How often characters stand in legal English, in parts of a thousand: only the choice between factors depends on it.
_FREQUENCY = dict(zip("etaoinshrdlcumfpgybwvkxjqz", range(100, 3, -4), strict=False))


@dataclass(frozen=True, slots=True)
class Factor:
    """``sets`` stand ``low`` to ``high`` characters after the start of a match of term number ``term``."""

    term: int
    sets: Sets
    low: int = 0
    high: int = 0

    @property
    def is_word(self) -> bool:
        """Whether each place takes one symbol."""
        return all(len(symbols) == 1 for symbols in self.sets)

    @property
    def word(self) -> bytes:
        """The symbols of a factor that is a word."""
        return bytes(symbol for symbols in self.sets for symbol in symbols)


@dataclass(frozen=True, slots=True)
class Term:
    """A literal or pattern with the number of its category."""

    category: int
    term: Literal | Pattern


class ScanPlan:
    """Alphabet, terms and factors of a playbook; ``terms`` are in the playbook's order."""

    def __init__(self, playbook: Playbook, longest: int = _LONGEST) -> None:
        self.terms: list[Term] = [
            Term(number, term)
            for number, category in enumerate(playbook.categories)
            for term in (*category.literals, *category.patterns)
        ]
        sources = {
            node.source for term in self.terms if isinstance(term.term, Pattern) for node in characters(term.term.tree)
        }
        letters = {char for term in self.terms if isinstance(term.term, Literal) for char in canonical(term.term.text)}
        members = [literal_members(char) for char in sorted(letters - {" "})]
        # Words are told apart from the rest, so that the kernel can look at what stands beside a literal.
        self.alphabet = Alphabet([*members, *(pattern_members(source) for source in sorted(sources | {r"\w"}))])
        self._symbols = {char: self.alphabet.symbols_of(literal_members(char)) for char in letters} | {" ": _WHITE}
        self.factors: list[Factor] = []
        finder = _Finder(self.alphabet, longest)
        for number, term in enumerate(self.terms):
            if isinstance(term.term, Literal):
                self.factors.append(Factor(number, self._literal(term.term)))
            else:
                self.factors += [replace(factor, term=number) for factor in finder.best(term.term.tree)]
        self.term_of = np.array([factor.term for factor in self.factors], np.int64)
        self.lengths = np.array([len(factor.sets) for factor in self.factors], np.int64)
        self.literals = LiteralTable(self.terms, self.factors, self.alphabet)

    def _literal(self, literal: Literal) -> Sets:
        return tuple(self._symbols[char] for char in canonical(literal.text))


@dataclass(frozen=True, slots=True)
class _Place:
    symbols: frozenset[int]
    low: int
    high: int


class _Walk:
    """Goes through a pattern from its start and collects the runs of neighbouring symbols that every match has."""

    def __init__(self) -> None:
        self.runs: list[list[_Place]] = [[]]
        self.unions: list[list[Factor]] = []
        self.low = 0
        self.high = 0

    def gap(self, low: int, high: int) -> None:
        self.runs.append([])
        self.low += low
        self.high += high

    def symbol(self, symbols: frozenset[int]) -> None:
        self.runs[-1].append(_Place(symbols, self.low, self.high))
        self.low += 1
        self.high += 1

    def white(self, low: int, high: int) -> None:
        """At least one blank: one symbol in the stream, whatever the length. A run never starts with it."""
        run = self.runs[-1]
        if run and run[-1].symbols != _WHITE:
            run.append(_Place(_WHITE, self.low, self.high))
        self.low += low
        self.high += high


class _Finder:
    def __init__(self, alphabet: Alphabet, longest: int) -> None:
        self.alphabet = alphabet
        self.longest = longest
        self.weights = [1e-4] * alphabet.size
        for code in range(32, 127):
            self.weights[int(alphabet.table[code])] += _FREQUENCY.get(chr(code).lower(), 5) / 3200
        self.weights[WHITE] = 0.16
        self._symbols: dict[str, frozenset[int]] = {}

    def best(self, node: Node) -> list[Factor]:
        """The rarest factors of which every match of ``node`` holds at least one."""
        walk = _Walk()
        self._walk(node, walk)
        options = [[factor] for run in walk.runs for factor in self._windows(run)] + walk.unions
        return max(options, key=self._rarity)

    def _rarity(self, union: Sequence[Factor]) -> float:
        return -math.log2(sum(self._probability(factor.sets) for factor in union))

    def _probability(self, sets: Sets) -> float:
        # Digits come in numbers and letters in words: another one of a kind is no news.
        shares = list(map(self._share, sets))
        repeats = [False, *(one == two and len(one) > 4 for one, two in pairwise(sets))]
        return math.prod(max(share, 0.4) if again else share for share, again in zip(shares, repeats, strict=True))

    def _share(self, symbols: frozenset[int]) -> float:
        return min(1.0, sum(self.weights[symbol] for symbol in symbols))

    def _windows(self, run: list[_Place]) -> Iterator[Factor]:
        for start, place in enumerate(run):
            if place.symbols != _WHITE:
                sets = tuple(other.symbols for other in run[start : start + self.longest])
                yield Factor(0, sets, place.low, place.high)

    def _walk(self, node: Node, walk: _Walk) -> None:
        match node:
            case Chars(source):
                self._repeat_chars(source, 1, 1, walk)
            case Boundary():
                pass
            case Repeat(Chars(source), low, high):
                self._repeat_chars(source, low, high, walk)
            case Repeat(item, low, high):
                shortest, longest = lengths(item)
                written = min(low, _COPIES)
                for _ in range(written):
                    self._walk(item, walk)
                if high > written:
                    walk.gap(shortest * (low - written), longest * (high - written))
            case InOrder(items):
                for item in items:
                    self._walk(item, walk)
            case Choice(branches):
                shortest, longest = lengths(node)
                if shortest and all(map(names_text, branches)):
                    found = [factor for branch in branches for factor in self.best(branch)]
                    walk.unions.append(
                        [Factor(0, item.sets, item.low + walk.low, item.high + walk.high) for item in found]
                    )
                walk.gap(shortest, longest)

    def _repeat_chars(self, source: str, low: int, high: int, walk: _Walk) -> None:
        white = white_members(source)
        if white and low and set(white) == set(_members_text(source)):
            walk.white(low, high)
            return
        if white or not low:
            walk.gap(low, high)
            return
        symbols = self._symbols.get(source) or self._symbols.setdefault(
            source, self.alphabet.symbols_of(pattern_members(source))
        )
        copies = min(low, self.longest)
        start, end = walk.low, walk.high
        for _ in range(copies):
            walk.symbol(symbols)
        if high > copies:
            # The last `copies` are neighbours of what follows, as the first are of what went before.
            walk.low, walk.high = start, end
            walk.gap(low - copies, high - copies)
            for _ in range(copies):
                walk.symbol(symbols)


def _members_text(source: str) -> str:
    ranges = pattern_members(source)
    if sum(end - start for start, end in ranges) > 64:
        return "x"  # far more than white space
    return "".join(chr(code) for start, end in ranges for code in range(start, end))
