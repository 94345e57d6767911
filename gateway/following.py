"""Follows a job's events for a client: as server-sent events, or until its end."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from gateway.state import Gateway
from gateway.while_allowed import interrupted, while_allowed
from services.errors import InvalidRequest, Unavailable, from_problem
from services.events import Event, follow
from services.jobs import Job, State
from services.principal import Principal

STREAM_ID = re.compile(r"\d{1,20}(-\d{1,20})?")
KEEPALIVE_SECONDS = 10.0


def event_stream(gateway: Gateway, principal: Principal, job: str, last_event_id: str | None) -> StreamingResponse:
    """The answer that follows a job or a run after an id of its stream; raises ``InvalidRequest`` for what is none."""
    events = server_sent_events(gateway, principal.tenant, job, stream_start(last_event_id))
    return StreamingResponse(
        while_allowed(gateway, principal, events),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def follow_job(
    gateway: Gateway, tenant: str, job: str, *, after: str = "0", idle_seconds: float
) -> AsyncGenerator[Event | None]:
    """The events of a job or a run, opened; see :func:`services.events.follow`."""
    lifecycle = gateway.lifecycle
    return follow(
        gateway.events, lifecycle.keys, tenant, job, records=lifecycle.records, after=after, idle_seconds=idle_seconds
    )


async def server_sent_events(gateway: Gateway, tenant: str, job: str, after: str) -> AsyncIterator[str]:
    """The events after an id as SSE text, with a comment as keep-alive; ends with the job's final event."""
    stream = follow_job(gateway, tenant, job, after=after, idle_seconds=KEEPALIVE_SECONDS)
    try:
        async for event in stream:
            yield sse(event) if event else ": waiting\n\n"
    except Unavailable as error:
        yield interrupted(error)


def sse(event: Event) -> str:
    """One event in the wire format of server-sent events."""
    return f"id: {event.id}\nevent: {event.event}\ndata: {json.dumps(event.data)}\n\n"


def stream_start(last_event_id: str | None) -> str:
    """The stream id to go on after; raises ``InvalidRequest`` for what is none."""
    if not last_event_id:
        return "0"
    if not STREAM_ID.fullmatch(last_event_id):
        raise InvalidRequest("Last-Event-ID is not an id of this stream", code="event_id_invalid")
    return last_event_id


async def wait_for_end(gateway: Gateway, tenant: str, job: str, seconds: float | None) -> Job | None:
    """The job's record once it has ended, or ``None`` when it has not within ``seconds``."""

    async def read() -> None:
        async for _ in follow_job(gateway, tenant, job, idle_seconds=KEEPALIVE_SECONDS):
            pass

    try:
        await asyncio.wait_for(read(), seconds)
    except TimeoutError:
        return None
    return await run_in_threadpool(gateway.lifecycle.get, tenant, job)


def result_of(gateway: Gateway, job: Job) -> dict[str, Any]:
    """The result of a job that succeeded; raises what made it fail."""
    if job.state is State.SUCCEEDED and job.result:
        return json.loads(gateway.blobs.get(job.tenant, job.result))
    if job.problem:
        raise from_problem(job.problem)
    raise InvalidRequest(f"the job was {job.state.value}", code=f"job_{job.state.value}", status=409)
