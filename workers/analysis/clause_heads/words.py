"""The words of a sentence as the clause heads count them: runs of one to three words, numbers all alike."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

LONGEST: Final = 3
_WORD: Final = re.compile(r"[^\W\d_]+|\d+|[$%]")


def words(text: str) -> list[str]:
    """Lower-case words, ``#`` for each run of digits, and the signs of money and shares."""
    return ["#" if word[0].isdigit() else word for word in _WORD.findall(text.lower())]


def runs(text: str) -> Iterator[str]:
    """Every word of ``text``, every two neighbours and every three, parted by one blank."""
    found = words(text)
    yield from found
    for first, second in pairwise(found):
        yield f"{first} {second}"
    for first, second, third in zip(found, found[1:], found[2:], strict=False):
        yield f"{first} {second} {third}"
