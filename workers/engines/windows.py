"""Windows over texts that follow one another, so that each is computed among its neighbours, exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MARGIN: Final = 64
"""Tokens of neighbours that a text has at most on either side of a window, in whole texts."""


@dataclass(frozen=True, slots=True)
class Window:
    """Texts ``first`` to before ``end`` are computed together; those from ``start`` to before ``stop`` are kept."""

    first: int
    end: int
    start: int
    stop: int


def windows_of(lengths: Sequence[int], room: int) -> list[Window]:
    """Windows of at most ``room`` tokens over texts of these ``lengths``, each at most ``room``.

    What is kept of one window begins where that of the last ended. Around it stand as many whole texts as ``MARGIN``
    holds; trained models rest on this rule.
    """
    found: list[Window] = []
    start = 0
    while start < len(lengths):
        first, before = start, 0
        while first > 0 and before + lengths[first - 1] <= MARGIN:
            first -= 1
            before += lengths[first]
        if before + lengths[start] > room:
            first, before = start, 0
        end, size = start, before
        while end < len(lengths) and size + lengths[end] <= room:
            size += lengths[end]
            end += 1
        stop, after = end, 0
        while end < len(lengths) and stop - 1 > start and after + lengths[stop - 1] <= MARGIN:
            stop -= 1
            after += lengths[stop]
        found.append(Window(first, end, start, stop))
        start = stop
    return found
