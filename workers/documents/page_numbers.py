"""Writes page numbers as a person does, for the notes on a document."""

from __future__ import annotations

from collections.abc import Sequence


def pages_are(numbers: Sequence[int]) -> str:
    """The beginning of a sentence about pages, which are in order: ``Pages 2-4 and 9 are``."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    names = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    if len(numbers) == 1:
        return f"Page {names[0]} is"
    return f"Pages {', '.join(names[:-1]) + ' and ' + names[-1] if len(names) > 1 else names[0]} are"
