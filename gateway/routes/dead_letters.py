"""``/v1/dead-letters``: jobs that failed for good, and their second life."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.keyed_route import KeyedRoute
from gateway.openapi.raises import raises
from gateway.paging import Cursor, Limit
from gateway.routes.jobs import retry_job
from gateway.schemas import JobList, JobView
from gateway.state import MatterReader, Shared, Submitter

router = APIRouter(prefix="/v1/dead-letters", tags=["jobs"], route_class=KeyedRoute)


@router.get("")
@raises("cursor_invalid")
def list_dead_letters(gateway: Shared, principal: MatterReader, limit: Limit = 50, cursor: Cursor = None) -> JobList:
    """The jobs that failed for good, newest failure first, each with its problem."""
    letters = gateway.jobs.dead_letters(principal.tenant, matters=principal.matters, cursor=cursor, limit=limit)
    return JobList.of(letters)


@router.post("/{job_id}/replay", status_code=202)
@raises(retry_job)
def replay_dead_letter(job_id: str, gateway: Shared, principal: Submitter) -> JobView:
    """Give a dead letter a new life; the same as ``POST /v1/jobs/{job_id}/retry``."""
    return retry_job(job_id, gateway, principal)
