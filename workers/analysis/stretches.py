"""Long work a stretch at a time, so that whoever waits for it sees it move, keeps its lease and can stop it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

Check = Callable[[], None]
"""Called again and again while work goes on; raises to stop it."""
STRETCH: Final = 1 << 16
"""Characters that one call of a regular expression goes through, in which no other thread runs."""
REACH: Final = 1 << 13
"""The most characters that a match and what is looked at behind it may have, for :func:`matches`."""

_Item = TypeVar("_Item")


def unchecked() -> None:
    """The check of who waits for no one."""


def matches(pattern: re.Pattern[str], text: str, check: Check) -> Iterator[re.Match[str]]:
    """What ``pattern.finditer(text)`` finds, for a pattern within :data:`REACH` that matches no empty text.

    ``check`` is called at each stretch of the text and after each match.
    """
    at = 0
    while at < len(text):
        check()
        end = at + STRETCH
        while (match := pattern.search(text, at, end + REACH)) and match.start() < end:
            yield match
            check()
            at = match.end()
        at = max(at, end)


def watched(items: Iterable[_Item], check: Check, *, every: int = 1) -> Iterator[_Item]:
    """``items``, with ``check`` called at the first and each further ``every`` of them."""
    for number, item in enumerate(items):
        if number % every == 0:
            check()
        yield item
