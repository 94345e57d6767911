"""Asks by the blocking or the awaiting client, so that a test is written once for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
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
