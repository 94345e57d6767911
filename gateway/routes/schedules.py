"""``/v1/schedules``: runs over a matter that recur by cron or rrule in a time zone."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Response

from gateway.keyed_route import KeyedRoute
from gateway.openapi.answers import answer
from gateway.openapi.raises import raises
from gateway.paging import Cursor, Limit
from gateway.run_schemas import ScheduleList, ScheduleRequest, ScheduleView
from gateway.state import MatterReader, MatterSubmitter, Reader, Shared, Submitter
from gateway.submissions import build_run_work, choose
from services.errors import InvalidRequest
from services.recurrence import Missed, Recurrence

router = APIRouter(prefix="/v1/schedules", tags=["runs"], route_class=KeyedRoute)


@router.post("", status_code=201, responses={201: answer("Location", description="The schedule is kept")})
@raises(build_run_work, "matter_required", "schedule_invalid", "missed_unknown", "audit_busy")
def create_schedule(
    body: ScheduleRequest, response: Response, gateway: Shared, principal: MatterSubmitter
) -> ScheduleView:
    """Keep a schedule; each due time makes exactly one run over the documents that the matter has then."""
    if body.run.matter is None or body.run.documents is not None or body.run.open:
        raise InvalidRequest("the run of a schedule goes over a `matter`", code="matter_required")
    if body.run.not_before is not None or body.run.expires_at is not None:
        raise InvalidRequest("the run of a schedule has no times of its own", code="schedule_invalid")
    missed = choose(Missed, body.missed, "missed")
    recurrence = Recurrence(zone=body.time_zone, start=gateway.schedules.now(), cron=body.cron, rrule=body.rrule)
    work = replace(build_run_work(gateway, principal, body.run), idempotency_key=None)
    schedule = gateway.schedules.add(body.name, recurrence, missed, work)
    gateway.audit.note(principal.tenant, principal.key_id, "schedule.created", schedule.id, matter=work.matter or "")
    response.headers["Location"] = f"/v1/schedules/{schedule.id}"
    return ScheduleView.of(schedule)


@router.get("")
@raises("cursor_invalid")
def list_schedules(gateway: Shared, principal: MatterReader, limit: Limit = 50, cursor: Cursor = None) -> ScheduleList:
    """The schedules with their next times, oldest first."""
    page = gateway.schedules.list(principal.tenant, matters=principal.matters, cursor=cursor, limit=limit)
    return ScheduleList(data=[ScheduleView.of(schedule) for schedule in page.rows], next_cursor=page.next_cursor)


@router.get("/{schedule_id}")
@raises("schedule_unknown")
def get_schedule(schedule_id: str, gateway: Shared, principal: Reader) -> ScheduleView:
    """One schedule; its runs are at ``/v1/runs?schedule=…``."""
    return ScheduleView.of(gateway.schedules.get(principal.tenant, schedule_id))


@router.post("/{schedule_id}/pause", status_code=202)
@raises("schedule_unknown", "audit_busy")
def pause_schedule(schedule_id: str, gateway: Shared, principal: Submitter) -> ScheduleView:
    """Let no due time fire until it is resumed."""
    schedule = gateway.schedules.pause(principal.tenant, schedule_id)
    gateway.audit.note(principal.tenant, principal.key_id, "schedule.paused", schedule_id)
    return ScheduleView.of(schedule)


@router.post("/{schedule_id}/resume", status_code=202)
@raises("schedule_unknown", "audit_busy")
def resume_schedule(schedule_id: str, gateway: Shared, principal: Submitter) -> ScheduleView:
    """Go on with the first due time from now on."""
    schedule = gateway.schedules.resume(principal.tenant, schedule_id)
    gateway.audit.note(principal.tenant, principal.key_id, "schedule.resumed", schedule_id)
    return ScheduleView.of(schedule)


@router.delete("/{schedule_id}", status_code=204, response_class=Response)
@raises("schedule_unknown", "audit_busy")
def remove_schedule(schedule_id: str, gateway: Shared, principal: Submitter) -> None:
    """Remove a schedule; runs that it has started go on."""
    gateway.schedules.get(principal.tenant, schedule_id)
    gateway.audit.note(principal.tenant, principal.key_id, "schedule.removed", schedule_id)
    gateway.schedules.remove(principal.tenant, schedule_id)
