"""``/v1/events``: the states of all jobs, runs and batches of a tenant, as they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from gateway.event_schemas import TENANT_EVENTS
from gateway.following import stream_start, tenant_event_stream
from gateway.keyed_route import KeyedRoute
from gateway.openapi.answers import events
from gateway.openapi.raises import raises
from gateway.paging import OfMatter
from gateway.request_headers import LastEventId
from gateway.state import MatterReader, Shared
from gateway.waiting import Waits
from services.events import Event
from services.principal import Principal

router = APIRouter(prefix="/v1/events", tags=["events"], route_class=KeyedRoute)


@router.get(
    "",
    response_class=StreamingResponse,
    responses={200: events("States, without end", TENANT_EVENTS)},
    dependencies=[Waits],
)
@raises(stream_start)
def follow_events(
    gateway: Shared,
    principal: MatterReader,
    matter: OfMatter = None,
    run: Annotated[str | None, Query(description="the states of this run and of its jobs alone")] = None,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Server-sent events: each state of each job, run and batch of the tenant, from now on or after ``Last-Event-ID``.

    ``Last-Event-ID: 0`` asks for all that are kept: about 20,000, for 24 hours. The first event says ``ready``, or
    ``gap`` where states after the id are not kept any more: look at ``/v1/jobs`` then. ``idle`` comes when nothing
    else does, with an id to come back with.
    """
    return tenant_event_stream(gateway, principal, last_event_id, shown(principal, matter, run))


def shown(principal: Principal, matter: str | None, run: str | None) -> Callable[[Event], bool]:
    """Whether an event is for this caller: of what the key may see, what the request asks for."""
    wanted = {name: value for name, value in (("matter", matter), ("run", run)) if value is not None}

    def fits(event: Event) -> bool:
        asked = all(event.data.get(name) == value for name, value in wanted.items())
        return asked and principal.sees(event.data["matter"] or None)

    return fits
