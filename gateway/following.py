"""Follows a job's events for a client: as server-sent events, or until its end."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import anyio
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from gateway.openapi.job_codes import ANY_JOB
from gateway.openapi.raises import raises
from gateway.state import Gateway
from gateway.while_allowed import interrupted, while_allowed
from services.errors import CasemillError, InvalidRequest, from_problem
from services.events import GAP, IDLE, READY, Event, follow, follow_tenant
from services.jobs import Job, State, is_inline
from services.principal import Principal

STREAM_ID = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")
KEEPALIVE_SECONDS = 10.0


def event_stream(gateway: Gateway, principal: Principal, job: str, last_event_id: str | None) -> StreamingResponse:
    """The answer that follows a job or a run after an id of its stream; raises ``InvalidRequest`` for what is none."""
    after = stream_start(last_event_id) or "0"
    stream = follow_job(gateway, principal.tenant, job, after=after, idle_seconds=KEEPALIVE_SECONDS)
    return _response(gateway, principal, stream)


def follow_job(
    gateway: Gateway, tenant: str, job: str, *, after: str = "0", idle_seconds: float
) -> AsyncGenerator[Event | None]:
    """The events of a job or a run, opened; see :func:`services.events.follow`."""
    lifecycle = gateway.lifecycle
    return follow(
        gateway.events, lifecycle.keys, tenant, job, records=lifecycle.records, after=after, idle_seconds=idle_seconds
    )


def tenant_event_stream(
    gateway: Gateway, principal: Principal, last_event_id: str | None, shown: Callable[[Event], bool]
) -> StreamingResponse:
    """The answer that follows the states of a tenant's jobs, runs and batches, those that are ``shown``; has no end."""
    lifecycle, tenant, after = gateway.lifecycle, principal.tenant, stream_start(last_event_id)

    async def events() -> AsyncGenerator[Event]:
        stream = follow_tenant(
            gateway.events,
            lifecycle.keys,
            tenant,
            records=lifecycle.records,
            after=after,
            idle_seconds=KEEPALIVE_SECONDS,
        )
        spoken = anyio.current_time()
        async with aclosing(stream):
            async for page in stream:
                told = [event for event in page if event.event in (READY, GAP, IDLE) or shown(event)]
                if not told and anyio.current_time() - spoken >= KEEPALIVE_SECONDS:  # others are busy
                    told = [Event(page[-1].id, IDLE, {})]
                if told:
                    spoken = anyio.current_time()
                named = {event.data["job"] for event in told if event.data.pop("named", False)}
                names = await gateway.external_ids.of(tenant, named)
                for event in told:
                    if event.event in (READY, GAP, IDLE):
                        yield event
                    else:
                        name = names.get(str(event.data.get("job")), "")
                        yield replace(event, data=event.data | {"external_id": name})

    return _response(gateway, principal, events())


def _response(
    gateway: Gateway, principal: Principal, events: AsyncGenerator[Event | None] | AsyncGenerator[Event]
) -> StreamingResponse:
    """Events as SSE text, with a comment as keep-alive, for as long as the key is good."""

    async def lines() -> AsyncGenerator[str]:
        try:
            async with aclosing(events):
                async for event in events:
                    yield sse(event) if event else ": waiting\n\n"
        except CasemillError as error:
            yield interrupted(error)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    body = while_allowed(gateway, principal, lines())
    return StreamingResponse(body, media_type="text/event-stream", headers=headers)


def sse(event: Event) -> str:
    """One event in the wire format of server-sent events."""
    return f"id: {event.id}\nevent: {event.event}\ndata: {json.dumps(event.data)}\n\n"


@raises("event_id_invalid")
def stream_start(last_event_id: str | None) -> str | None:
    """The stream id to go on after; raises ``InvalidRequest`` for what is none."""
    if not last_event_id:
        return None
    numbers = last_event_id.split("-")
    if not STREAM_ID.fullmatch(last_event_id) or any(int(number) >= 2**64 for number in numbers):
        raise InvalidRequest("Last-Event-ID is not an id of this stream", code="event_id_invalid")
    return last_event_id


@raises("too_many_followers", "unavailable")
async def wait_for_end(gateway: Gateway, tenant: str, job: str, seconds: float | None) -> Job | None:
    """The job's record once it has ended, or ``None`` when it has not within ``seconds``."""
    events = follow_job(gateway, tenant, job, idle_seconds=KEEPALIVE_SECONDS)
    with anyio.move_on_after(seconds) as scope:
        async with aclosing(events):
            async for _ in events:
                pass
    return None if scope.cancelled_caught else await run_in_threadpool(gateway.lifecycle.get, tenant, job)


@raises(*ANY_JOB, "blob_missing")
def result_of(gateway: Gateway, job: Job) -> dict[str, Any]:
    """The result of a job that succeeded; raises what made it fail."""
    if job.state is State.SUCCEEDED and job.result:
        return json.loads(job.result if is_inline(job.result) else gateway.blobs.get(job.tenant, job.result))
    if job.problem:
        raise from_problem(job.problem)
    raise InvalidRequest(f"the job was {job.state.value}", code=f"job_{job.state.value}", status=409)
