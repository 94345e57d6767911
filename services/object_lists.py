"""Lists as OpenAI's clients page through them: after an object's id, newest first or oldest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from services.errors import NotFound
from services.redis_client import Redis, redis_errors

Found = TypeVar("Found")
Order = Literal["asc", "desc"]
STRETCH = 200


def object_page(
    client: Redis, index: str, find: Callable[[str], Found | None], *, after: str | None, limit: int, order: Order
) -> tuple[list[Found], bool]:
    """Up to ``limit`` objects of a sorted set of ids that ``find`` finds, and whether there are more.

    Raises ``NotFound`` code ``after_unknown``.
    """
    start, newest = 0, order == "desc"
    if after is not None:
        with redis_errors():
            rank: int | None = (client.zrevrank if newest else client.zrank)(index, after)
        if rank is None:
            raise NotFound(f"there is no {after!r} to go on after", code="after_unknown")
        start = rank + 1
    found: list[Found] = []
    while True:
        with redis_errors():
            ids: list[str] = client.zrange(index, start, start + STRETCH - 1, desc=newest)
        for name in ids:
            one = find(name)
            if one is not None and len(found) == limit:
                return found, True
            if one is not None:
                found.append(one)
        if len(ids) < STRETCH:
            return found, False
        start += STRETCH
