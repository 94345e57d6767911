"""Asks by the blocking or the awaiting client, so that a test is written once for both."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from casemill import AsyncCasemill, Casemill


def ask(call: Callable[[Any], Any], *, awaiting: bool, **options: Any) -> Any:
    """What a call of a client answers, iterators as lists."""
    if not awaiting:
        with Casemill(**options) as client:
            value = call(client)
            return list(value) if isinstance(value, Iterator) else value

    async def within() -> Any:
        async with AsyncCasemill(**options) as client:
            value = call(client)
            return [item async for item in value] if isinstance(value, AsyncIterator) else await value

    return asyncio.run(within())


def first(count: int, items: Any) -> Any:
    """The first few of what a client iterates, to be iterated as that is."""
    if isinstance(items, Iterator):
        return itertools.islice(items, count)

    async def taken() -> Any:
        async with aclosing(items):
            for _ in range(count):
                yield await anext(items)

    return taken()
