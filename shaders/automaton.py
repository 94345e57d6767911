"""The deterministic automata of a playbook's factors: tables that the scan kernels walk, a step a symbol.

Nearly all factors are words, one symbol a place: ``words.py`` builds their automata. Those with sets are built here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.errors import Permanent
from shaders.factors import Factor, ScanPlan
from shaders.words import ACCEPT, Automaton, word_automata

MAX_CELLS = 16 << 20
"""Cells of the largest table: 64 MiB, half of what the smallest adapters bind. A playbook may need several tables."""


class _TooLarge(Exception):
    """The factors need more than one table."""


def build_automata(plan: ScanPlan, numbers: Sequence[int] | None = None) -> tuple[Automaton, ...]:
    """The automata of ``plan``, which together find each of its factors, or of those with these ``numbers``, once.

    Raises :class:`Permanent` with code ``playbook_too_large`` where the table of one factor passes :data:`MAX_CELLS`.
    """
    words: list[int] = []
    others: list[int] = []
    for number in range(len(plan.factors)) if numbers is None else numbers:
        (words if plan.factors[number].is_word else others).append(number)
    found = word_automata({number: plan.factors[number].word for number in words}, plan.alphabet.size, MAX_CELLS)
    return (*found, *_with_sets(plan, others))


def _with_sets(plan: ScanPlan, numbers: list[int]) -> list[Automaton]:
    """Automata of the factors of these numbers, in halves where one table does not hold them."""
    if not numbers:
        return []
    try:
        return [_automaton([plan.factors[number] for number in numbers], numbers, plan.alphabet.size)]
    except _TooLarge:
        if len(numbers) == 1:
            raise Permanent(
                "a pattern of the playbook makes a table too large for the GPU; shorten it or ask for the CPU",
                code="playbook_too_large",
            ) from None
        half = len(numbers) // 2
        return _with_sets(plan, numbers[:half]) + _with_sets(plan, numbers[half:])


class _Node:
    """A node of the trie of factors; edges are symbol sets, so that several may take the same symbol."""

    __slots__ = ("edges", "ends", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.edges: dict[frozenset[int], _Node] = {}
        self.ends: list[int] = []


def _automaton(factors: Sequence[Factor], numbers: Sequence[int], row: int) -> Automaton:
    nodes = [_Node(0)]
    for number, factor in zip(numbers, factors, strict=True):
        node = nodes[0]
        for symbols in factor.sets:
            if symbols not in node.edges:
                nodes.append(_Node(len(nodes)))
                node.edges[symbols] = nodes[-1]
            node = node.edges[symbols]
        node.ends.append(number)

    start = _moves(nodes[0])
    states: dict[frozenset[int], int] = {frozenset(): 0}
    queue = [frozenset[int]()]
    rows: list[NDArray[np.uint32]] = []
    base: NDArray[np.uint32] | None = None
    for state in queue:  # grows while it is read
        moves: defaultdict[int, set[int]] = defaultdict(set)
        for number in state or (0,):
            for symbol, reached in _moves(nodes[number]).items():
                moves[symbol] |= reached
        cells = np.zeros(row, np.uint32) if base is None else base.copy()
        for symbol, reached in moves.items():
            following = frozenset(reached | start.get(symbol, set()))
            if following not in states:
                if (len(states) + 1) * row > MAX_CELLS:
                    raise _TooLarge
                states[following] = len(queue)
                queue.append(following)
            cells[symbol] = states[following]
        rows.append(cells)
        base = rows[0]

    ends = [sorted({end for number in state for end in nodes[number].ends}) for state in queue]
    accepting = np.array([ACCEPT if found else 0 for found in ends], np.uint32)
    following = np.stack(rows)
    counts = np.array([len(found) for found in ends], np.int64)
    return Automaton(
        table=(following * np.uint32(row) | accepting[following]).ravel(),
        row=row,
        first=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        ends=np.array([end for found in ends for end in found], np.int32),
        overlap=max(len(factor.sets) for factor in factors) - 1,
    )


def _moves(node: _Node) -> dict[int, set[int]]:
    moves: defaultdict[int, set[int]] = defaultdict(set)
    for symbols, child in node.edges.items():
        for symbol in symbols:
            moves[symbol].add(child.number)
    return moves
