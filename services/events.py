"""The event stream of a job: states, steps, progress and tokens, in order, readable from any point."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from services.jobs import State
from services.keys import Keys
from services.redis_client import AsyncRedis, redis_errors
from services.sealed_records import SealedRecords

FINAL = frozenset(state.value for state in State if state.final)


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``id`` is its place in the stream (the Redis stream id), ``data`` JSON-ready."""

    id: str
    event: str
    data: dict[str, Any]

    @property
    def final(self) -> bool:
        """Whether the stream ends with this event."""
        return self.event in FINAL


async def follow(
    client: AsyncRedis,
    keys: Keys,
    tenant: str,
    job: str,
    *,
    records: SealedRecords,
    after: str = "0",
    idle_seconds: float = 15.0,
) -> AsyncGenerator[Event | None]:
    """Yield the job's events after the id ``after`` until its final one; ``None`` for each idle period in between.

    Ends at once when the stream does not exist any more, or when ``after`` is its final event already. Raises
    ``Unavailable`` when Redis goes away.
    """
    name = keys("events", tenant=tenant, id=job)
    if after != "0" and await _has_ended(client, name, after):
        return
    while True:
        with redis_errors():
            answer: Any = await client.xread({name: after}, count=500, block=int(idle_seconds * 1000))
        if not answer:
            if await _has_ended(client, name, after):
                return
            yield None
            continue
        rows: list[tuple[str, dict[str, str]]] = answer[0][1]
        for row in rows:
            event = Event(row[0], row[1]["event"], records.open_event(tenant, row[1]["data"]))
            yield event
            after = event.id
            if event.final:
                return


async def _has_ended(client: AsyncRedis, name: str, after: str) -> bool:
    """Whether the stream is gone, or its last event is final and not newer than ``after``."""
    with redis_errors():
        last: list[tuple[str, dict[str, str]]] = await client.xrevrange(name, count=1)
    if not last:
        return True
    place, fields = last[0]
    return fields["event"] in FINAL and _place(place) <= _place(after)


def _place(stream_id: str) -> tuple[int, int]:
    time, _, serial = stream_id.partition("-")
    return int(time), int(serial or 0)
