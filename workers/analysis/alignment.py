"""Aligns the clauses of two versions: which is which, in order as far as can be, and which of the rest have moved.

Pairs are found by the pairs of neighbouring words that clauses share. The heaviest chain of pairs that goes forward in
both versions is the alignment; alike clauses off the chain have moved. Work grows with the length of the versions, not
with its square: a clause looks only at the few clauses that share its rarest word pairs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

# Dice coefficient of word pairs: from here on, a clause in its place is a changed one and not another,
NEAR: Final = 0.4
# and one elsewhere is taken for the same, unless it is so short that it may stand anywhere.
MOVED: Final = 0.7
MOVED_WORDS: Final = 6
# Word pairs of a clause that are looked up, clauses that one of them may lead to, and clauses that are compared.
_LOOKED_UP: Final = 32
_LEADS: Final = 64
_COMPARED: Final = 8

Words = Sequence[str]


@dataclass(frozen=True, slots=True)
class Pair:
    """Clause ``before`` of the one version is clause ``after`` of the other; ``likeness`` 1.0 says word for word."""

    before: int
    after: int
    likeness: float
    moved: bool = False


def align(before: Sequence[Words], after: Sequence[Words], check: Callable[[], None]) -> list[Pair]:
    """The pairs, by their place in ``after``; each clause is in one at most. ``check`` is called while it works."""
    found = _candidates(before, after, check)
    chain = _filled(_heaviest_chain(found), before, after)
    paired = {pair.before for pair in chain}, {pair.after for pair in chain}
    for pair in sorted(found, key=lambda pair: (-pair.likeness, pair.after, pair.before)):
        long = min(len(before[pair.before]), len(after[pair.after])) >= MOVED_WORDS
        if long and pair.likeness >= MOVED and pair.before not in paired[0] and pair.after not in paired[1]:
            chain.append(Pair(pair.before, pair.after, pair.likeness, moved=True))
            paired[0].add(pair.before)
            paired[1].add(pair.after)
    return sorted(chain, key=lambda pair: pair.after)


def _grams(words: Words) -> Counter[tuple[str, str]]:
    """Pairs of neighbouring words, the clause's ends included, so that a single word has two."""
    return Counter(pairwise(("", *words, "")))


def _candidates(before: Sequence[Words], after: Sequence[Words], check: Callable[[], None]) -> list[Pair]:
    """Pairs of clauses that are near or equal, by their place in ``before``."""
    others = [_grams(words) for words in after]
    holders: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for place, grams in enumerate(others):
        for gram in grams:
            holders[gram].append(place)
    same: defaultdict[Words, list[int]] = defaultdict(list)
    for place, words in enumerate(after):
        same[tuple(words)].append(place)
    seen: Counter[Words] = Counter()
    found: list[Pair] = []
    expected = -1  # where a clause stands if it still follows the last equal one
    for place, words in enumerate(before):
        check()
        expected += 1
        grams, key = _grams(words), tuple(words)
        shared: Counter[int] = Counter()
        rare = sorted((len(holders[gram]), gram) for gram in grams if gram in holders)[:_LOOKED_UP]
        for _, gram in rare:
            places = holders[gram]
            middle = bisect_left(places, expected)
            shared.update(places[max(0, middle - _LEADS // 2) : middle + _LEADS // 2])
        # The n-th of equal clauses stands for the n-th of the other version.
        equal = [same[key][seen[key]]] if seen[key] < len(same[key]) else []
        seen[key] += 1
        expected = equal[0] if equal else expected
        for other in dict.fromkeys([*equal, *(other for other, _ in shared.most_common(_COMPARED))]):
            likeness = 1.0 if tuple(after[other]) == key else min(_dice(grams, others[other]), 0.9999)
            if likeness >= NEAR:
                found.append(Pair(place, other, likeness))
    return found


def _dice(one: Counter[tuple[str, str]], other: Counter[tuple[str, str]]) -> float:
    return 2 * (one & other).total() / (one.total() + other.total())


def _heaviest_chain(pairs: Sequence[Pair]) -> list[Pair]:
    """Of pairs by place in ``before``, the chain that goes forward in both versions and is heaviest in likeness."""
    # Ends of chains: among those that end at or before a place, only ever heavier ones are kept.
    places: list[int] = []
    weights: list[float] = []
    ends: list[int] = []
    earlier: list[int] = [-1] * len(pairs)
    start = 0
    while start < len(pairs):
        stop = start
        while stop < len(pairs) and pairs[stop].before == pairs[start].before:
            stop += 1
        reached: list[tuple[int, float, int]] = []
        for number in range(start, stop):
            at = bisect_left(places, pairs[number].after) - 1
            earlier[number] = ends[at] if at >= 0 else -1
            reached.append((pairs[number].after, (weights[at] if at >= 0 else 0.0) + pairs[number].likeness, number))
        for place, weight, number in reached:
            at = bisect_right(places, place)
            if at and weights[at - 1] >= weight:
                continue
            if at and places[at - 1] == place:
                at -= 1
            beaten = at
            while beaten < len(places) and weights[beaten] <= weight:
                beaten += 1
            places[at:beaten], weights[at:beaten], ends[at:beaten] = [place], [weight], [number]
        start = stop
    chain: list[Pair] = []
    number = ends[-1] if ends else -1
    while number >= 0:
        chain.append(pairs[number])
        number = earlier[number]
    return chain[::-1]


def _filled(chain: list[Pair], before: Sequence[Words], after: Sequence[Words]) -> list[Pair]:
    """The chain with the equal clauses right behind and before its pairs: the repeated ones are not all candidates."""
    filled: list[Pair] = []
    ends = Pair(len(before), len(after), 0.0)
    last = Pair(-1, -1, 0.0)
    for pair in [*chain, ends]:
        one, other = last.before + 1, last.after + 1
        while one < pair.before and other < pair.after and before[one] == after[other]:
            filled.append(Pair(one, other, 1.0))
            one, other = one + 1, other + 1
        back: list[Pair] = []
        left, right = pair.before - 1, pair.after - 1
        while left >= one and right >= other and before[left] == after[right]:
            back.append(Pair(left, right, 1.0))
            left, right = left - 1, right - 1
        filled += [*back[::-1], pair]
        last = pair
    return filled[:-1]
