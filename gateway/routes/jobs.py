"""``/v1/jobs``: submit, list, look, follow and cancel."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from gateway.accepting import Acceptor
from gateway.following import event_stream, result_of
from gateway.schemas import JobList, JobRequest, JobView
from gateway.state import Gateway, MatterReader, Reader, Shared, Submitter
from gateway.submissions import choose
from services.errors import Permanent
from services.jobs import Job, State

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("", status_code=202)
def submit_job(body: JobRequest, accept: Acceptor) -> JobView:
    """Accept a job. With an ``Idempotency-Key`` a repeated request answers the same job."""
    return accept(body)


@router.get("")
def list_jobs(
    gateway: Shared,
    principal: MatterReader,
    state: Annotated[list[str] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobList:
    """The newest jobs of the tenant, newest first, without results."""
    states = [choose(State, name, "state") for name in state or []]
    jobs = gateway.lifecycle.list(principal.tenant, states=states, matters=principal.matters, limit=limit)
    return JobList(data=[JobView.of(job) for job in jobs])


@router.get("/{job_id}")
def get_job(job_id: str, gateway: Shared, principal: Reader) -> JobView:
    """Where a job stands, with its result once it has succeeded."""
    job = gateway.lifecycle.get(principal.tenant, job_id)
    position = gateway.lifecycle.position(job)
    view = JobView.of(job, position=position, eta=_eta(gateway, job, position))
    if job.state is State.SUCCEEDED:
        try:
            view.result = result_of(gateway, job)
        except Permanent as error:  # erased with its document, or older than results are kept
            view.problem = error.problem()
    return view


@router.post("/{job_id}/retry", status_code=202)
def retry_job(job_id: str, gateway: Shared, principal: Submitter) -> JobView:
    """Run a job again that failed, was cancelled or expired; a review goes on with the step that ended it."""
    gateway.lifecycle.replay(principal.tenant, job_id)
    gateway.audit.note(principal.tenant, principal.key_id, "job.retried", job_id)
    return JobView.of(gateway.lifecycle.get(principal.tenant, job_id))


@router.get("/{job_id}/events", response_class=StreamingResponse)
def follow_job(
    job_id: str,
    gateway: Shared,
    principal: Reader,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Server-sent events: states, steps, progress and tokens; resumes after ``Last-Event-ID``."""
    gateway.lifecycle.get(principal.tenant, job_id)
    return event_stream(gateway, principal, job_id, last_event_id)


@router.delete("/{job_id}", status_code=202)
def cancel_job(job_id: str, gateway: Shared, principal: Submitter) -> JobView:
    """Cancel a job: at once while it waits, at its next step while it runs. One that has ended stays as it is."""
    gateway.lifecycle.get(principal.tenant, job_id)
    gateway.audit.note(principal.tenant, principal.key_id, "job.cancelled", job_id)
    gateway.lifecycle.cancel(principal.tenant, job_id)
    return JobView.of(gateway.lifecycle.get(principal.tenant, job_id))


def _eta(gateway: Gateway, job: Job, position: int | None) -> float | None:
    """Seconds until a queued job starts: the jobs before it × the lane's measured time ÷ its live slots."""
    if position is None:
        return None
    slots = sum(worker.slots for worker in gateway.fleet.workers() if job.lane in worker.lanes)
    took = gateway.lifecycle.service_seconds().get(job.lane)
    return round(position * took / slots, 3) if slots and took is not None else None
