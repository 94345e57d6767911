"""``/v1/dead-letters``: jobs that failed for good, and their second life."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.paging import Cursor, Limit
from gateway.schemas import JobList, JobView
from gateway.state import Reader, Shared, Submitter

router = APIRouter(prefix="/v1/dead-letters", tags=["jobs"])


@router.get("")
def list_dead_letters(gateway: Shared, principal: Reader, limit: Limit = 50, cursor: Cursor = None) -> JobList:
    """The jobs that failed for good, newest failure first, each with its problem."""
    return JobList.of(gateway.jobs.dead_letters(principal.tenant, cursor=cursor, limit=limit))


@router.post("/{job_id}/replay", status_code=202)
def replay_dead_letter(job_id: str, gateway: Shared, principal: Submitter) -> JobView:
    """Give a dead letter a new life; the same as ``POST /v1/jobs/{job_id}/retry``."""
    gateway.lifecycle.replay(principal.tenant, job_id)
    return JobView.of(gateway.lifecycle.get(principal.tenant, job_id))
