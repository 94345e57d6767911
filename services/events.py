"""Events in order, readable from any point: a job's states, steps, progress and tokens, and the states of a tenant."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from services.jobs import State
from services.keys import Keys
from services.redis_client import Redis, redis_errors
from services.sealed_records import SealedRecords
from services.streams import Row, Streams, place

# What a tenant's stream says of itself.
READY, GAP, IDLE = "ready", "gap", "idle"
# The place before the first state of a tenant, apart from 0-0, which asks for all that are kept.
NOTHING_YET = "0-1"
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


def _event(records: SealedRecords, tenant: str, row: Row) -> Event:
    return Event(id=row[0], event=row[1]["event"], data=records.open_event(tenant, row[1]["data"]))


async def follow(
    streams: Streams,
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
    if after != "0" and await _has_ended(streams, name, after):
        return
    async with streams.following(name, after) as follower:
        while True:
            rows = await follower.next(idle_seconds)
            if not rows:
                if await _has_ended(streams, name, follower.after):
                    return
                yield None
            for row in rows:
                event = _event(records, tenant, row)
                yield event
                if event.final:
                    return


async def follow_tenant(
    streams: Streams,
    keys: Keys,
    tenant: str,
    *,
    records: SealedRecords,
    after: str | None,
    idle_seconds: float = 15.0,
) -> AsyncGenerator[list[Event]]:
    """Yield the states of a tenant, those that came together, after the id ``after``, or from now on; has no end.

    ``after`` 0 asks for all that are kept. The place is told by an event ``ready`` first and by ``idle`` after each
    idle period, so that whoever comes back with the last id misses nothing. ``gap`` in the place of ``ready`` says that
    states after ``after`` are not kept any more; those that are follow. ``named`` in an event's data says that its job
    has an external id. Raises ``Unavailable`` when Redis goes away.
    """
    name = keys("tenant_events", tenant=tenant)
    oldest, newest = await streams.ends(name)
    latest = newest[0] if newest else NOTHING_YET
    start = latest if after is None else after
    begun = place(oldest[0]) if oldest else place(NOTHING_YET)
    kept = place(start) == (0, 0) or begun <= place(start) <= place(latest)
    start = start if kept else "0-0"
    yield [Event(start, READY if kept else GAP, {})]
    async with streams.following(name, start) as follower:
        while True:
            rows = await follower.next(idle_seconds)
            yield [_event(records, tenant, row) for row in rows] or [Event(follower.after, IDLE, {})]


def read_external_ids(
    client: Redis, keys: Keys, records: SealedRecords, tenant: str, jobs: Sequence[str]
) -> dict[str, str]:
    """What a client calls each of these jobs, in one round trip; empty where one has no name, or is gone."""
    with redis_errors():
        pipeline = client.pipeline(transaction=False)
        for job in jobs:
            pipeline.hget(keys("job", tenant=tenant, id=job), "external_id")
        stored: list[str | None] = pipeline.execute()
    return {job: records.external_id(tenant, text or "") for job, text in zip(jobs, stored, strict=True)}


async def _has_ended(streams: Streams, name: str, after: str) -> bool:
    """Whether the stream is gone, or its last event is final and not newer than ``after``."""
    _, newest = await streams.ends(name)
    if newest is None:
        return True
    return newest[1]["event"] in FINAL and place(newest[0]) <= place(after)
