"""One opaque cursor for every list: the place of the last row seen, so that a page is stable while new rows arrive."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.errors import InvalidRequest
from services.redis_client import Redis, redis_errors

Row = TypeVar("Row")

MOST_CURSOR = 512
BATCH = 100
# Scores are times and numbers of rows: up to here each whole number is one, and every command of the server takes it.
MOST_SCORE = 2.0**53
_WRITTEN = re.compile(r"([a-z-]+) ([0-9.e+-]{1,32}) ([\x21-\x7e]{1,200})")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a row stands: its score, and among rows of the same score its name."""

    score: float
    name: str


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows of a list; ``next_cursor`` asks for those that follow, ``None`` when there are none."""

    rows: list[Row]
    next_cursor: str | None


def write_cursor(kind: str, place: Place) -> str:
    """The cursor after a place of the list ``kind``."""
    return base64.urlsafe_b64encode(f"{kind} {place.score!r} {place.name}".encode()).decode().rstrip("=")


def read_cursor(kind: str, cursor: str | None) -> Place | None:
    """The place that a cursor of the list ``kind`` names; raises code ``cursor_invalid`` for anything else.

    Who makes one up reads on from another place of the same list, which is theirs anyway.
    """
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor[:MOST_CURSOR] + "=" * (-len(cursor) % 4), b"-_", validate=True).decode("ascii")
        found = _WRITTEN.fullmatch(text)
        place = Place(float(found[2]), found[3]) if found and found[1] == kind else None
    except ValueError:  # not base64, not ASCII, not a number
        place = None
    if place is None or not abs(place.score) <= MOST_SCORE:  # which "nan" is not
        raise InvalidRequest("the cursor is not a `next_cursor` of this list; begin without one", code="cursor_invalid")
    return place


def newest(client: Redis, names: Sequence[str], after: Place | None, count: int) -> list[Place]:
    """The places of sorted sets together that come after ``after``, highest score first, ``count`` of them at most."""
    found = {place for name in names for place in _newest(client, name, after, count)}
    return sorted(found, reverse=True)[:count]


def _newest(client: Redis, name: str, after: Place | None, count: int) -> list[Place]:
    highest = "+inf" if after is None else repr(after.score)
    found: list[Place] = []
    offset = 0
    while len(found) < count:
        with redis_errors():
            rows = client.zrevrangebyscore(name, highest, "-inf", offset, count, withscores=True)
        places = [Place(score, member) for member, score in rows]
        found += [place for place in places if after is None or place < after]
        if len(rows) < count:
            break
        offset += count
    return found[:count]


def page_of_newest(
    client: Redis,
    kind: str,
    names: Sequence[str],
    rows: Callable[[Sequence[Place]], Iterable[tuple[Place, Row]]],
    *,
    cursor: str | None,
    limit: int,
    most: float = math.inf,
) -> Page[Row]:
    """One page of the rows of sorted sets, newest first, of those that ``rows`` answers for their places.

    Its cursor is the place of a row that the page has, so nothing is told of those left out. A page that has looked at
    ``most`` places goes on by a cursor from there, whatever it has found.
    """
    found: list[Row] = []
    last = after = read_cursor(kind, cursor)
    looked_at = 0
    while looked_at < most:
        places = newest(client, names, after, BATCH)
        for place, row in rows(places):
            if len(found) == limit and last:
                return Page(found, write_cursor(kind, last))
            found.append(row)
            last = place
        if len(places) < BATCH:
            return Page(found, None)
        after = places[-1]
        looked_at += len(places)
    return Page(found, write_cursor(kind, after) if after else None)


def page_of(
    kind: str, rows: Sequence[Row], place: Callable[[Row], Place], *, cursor: str | None, limit: int
) -> Page[Row]:
    """One page of a list that is short enough to be read whole; ``rows`` ascend by their ``place``."""
    after = read_cursor(kind, cursor)
    left = [row for row in rows if after is None or place(row) > after]
    following = write_cursor(kind, place(left[limit - 1])) if len(left) > limit else None
    return Page(left[:limit], following)
