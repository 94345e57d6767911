"""One deterministic automaton for all factors of a playbook: the table that the scan kernel walks, a step a symbol."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.errors import Permanent
from shaders.factors import ScanPlan

MAX_CELLS = 16 << 20
"""Cells of the largest table: 64 MiB, half of what the smallest adapters bind."""
_ACCEPT = 1 << 31


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
    lengths: NDArray[np.int64]
    overlap: int


class _Node:
    """A node of the trie of factors; edges are symbol sets, so that several may take the same symbol."""

    __slots__ = ("edges", "ends", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.edges: dict[frozenset[int], _Node] = {}
        self.ends: list[int] = []


def build_automaton(plan: ScanPlan) -> Automaton:
    """The automaton of ``plan``.

    Raises :class:`Permanent` with code ``playbook_too_large`` where the table would pass :data:`MAX_CELLS`.
    """
    nodes = [_Node(0)]
    for number, factor in enumerate(plan.factors):
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
    row = plan.alphabet.size
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
                    raise Permanent(
                        "the playbook's terms make a table too large for the GPU; split it or ask for the CPU",
                        code="playbook_too_large",
                    )
                states[following] = len(queue)
                queue.append(following)
            cells[symbol] = states[following]
        rows.append(cells)
        base = rows[0]

    ends = [sorted({end for number in state for end in nodes[number].ends}) for state in queue]
    accepting = np.array([_ACCEPT if found else 0 for found in ends], np.uint32)
    following = np.stack(rows)
    counts = np.array([len(found) for found in ends], np.int64)
    return Automaton(
        table=(following * np.uint32(row) | accepting[following]).ravel(),
        row=row,
        first=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        ends=np.array([end for found in ends for end in found], np.int32),
        lengths=np.array([len(factor.sets) for factor in plan.factors], np.int64),
        overlap=plan.longest - 1,
    )


def _moves(node: _Node) -> dict[int, set[int]]:
    moves: defaultdict[int, set[int]] = defaultdict(set)
    for symbols, child in node.edges.items():
        for symbol in symbols:
            moves[symbol].add(child.number)
    return moves
