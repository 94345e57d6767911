"""``/v1/jobs``: submit, list, look, follow and cancel."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from gateway.accepting import ACCEPTED, Acceptor
from gateway.conditional import TAGGED, Conditional
from gateway.event_schemas import JOB_EVENTS
from gateway.following import event_stream, stream_start
from gateway.job_lines import MEDIA_TYPE, JobLine, LineAnswer, LinesRoute, submit_lines
from gateway.job_views import whole_view
from gateway.keyed_route import KeyedRoute
from gateway.openapi.answers import events, lines, ref
from gateway.openapi.raises import raises
from gateway.paging import Cursor, Limit, OfMatter
from gateway.request_headers import IdempotencyKey, LastEventId
from gateway.schemas import JobList, JobRequest, JobView, StateName, TypeName
from gateway.state import MatterReader, MatterSubmitter, Reader, Shared, Submitter
from gateway.submissions import build_submission, choose, tokens_again
from gateway.waiting import Waits
from services.job_index import METADATA, Wanted
from services.jobs import JobType, State

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=KeyedRoute)


async def submit_jobs(
    request: Request,
    gateway: Shared,
    principal: MatterSubmitter,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept many jobs, each or not; see :mod:`gateway.job_lines`."""
    body = await request.body()
    answer = await run_in_threadpool(
        submit_lines,
        gateway,
        principal,
        body,
        idempotency_key=idempotency_key,
        request_id=request.state.request_id,
    )
    return Response(answer, media_type=MEDIA_TYPE)


# Before the route of single jobs, which takes all other bodies and describes both.
router.add_api_route("", submit_jobs, methods=["POST"], include_in_schema=False, route_class_override=LinesRoute)

_LINES: Final[dict[str, Any]] = {
    "requestBody": {"content": {MEDIA_TYPE: {"schema": {"type": "string"}, "itemSchema": ref(JobLine)}}}
}
_ENDED: Final = lines(
    MEDIA_TYPE,
    LineAnswer,
    "The job has ended while the request waited for it; or the answers to the lines of a body of lines",
    "Location?",
    "Preference-Applied",
)


@router.post(
    "",
    status_code=202,
    response_model=JobView,
    openapi_extra=_LINES,
    responses=ACCEPTED | {200: ACCEPTED[200] | _ENDED},
)
@raises(build_submission, submit_lines)
async def submit_job(body: JobRequest, accept: Acceptor) -> Response:
    """Accept a job. With an ``Idempotency-Key`` a repeated request answers the same job.

    With `Prefer: wait=N` the answer is 200 with the ended job and its result, or 202 when that takes longer.

    As `application/x-ndjson` the body has a job a line, each of which may have an `idempotency_key` of its own. The
    answer has a line for each: `{"line": 1, "status": 202, "job": …}` or `{"line": 2, "status": 422, "problem": …}`. A
    line that is refused does not stop the others.
    """
    return await accept(body)


@raises("state_unknown", "type_unknown")
def wanted_jobs(
    request: Request,
    state: Annotated[list[StateName] | None, Query(description="in one of these states")] = None,
    job_type: Annotated[list[TypeName] | None, Query(alias="type", description="of one of these types")] = None,
    matter: OfMatter = None,
    external_id: Annotated[str | None, Query(description="that you call this")] = None,
    run: Annotated[str | None, Query(description="the jobs of this run, which are listed by it alone")] = None,
) -> Wanted:
    """The dependency: which jobs the parameters ask for."""
    named = {"matter": matter, "external_id": external_id}
    named |= {name: value for name, value in request.query_params.items() if name.startswith(METADATA)}
    return Wanted(
        states=frozenset(choose(State, name, "state") for name in state or ()),
        types=frozenset(choose(JobType, name, "type") for name in job_type or ()),
        labels={name: value for name, value in named.items() if value is not None},
        run=run,
    )


@router.get("")
@raises("cursor_invalid")
def list_jobs(
    gateway: Shared,
    principal: MatterReader,
    wanted: Annotated[Wanted, Depends(wanted_jobs)],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JobList:
    """The newest jobs that fit all that is asked for, newest first, without results.

    `metadata.KEY=VALUE` asks for jobs with that metadata. A page can have less than `limit` jobs and a `next_cursor`
    still, where only a few among many are in the `state`, of the `type` or of the matters of the key.
    """
    visible = replace(wanted, matters=principal.matters)
    return JobList.of(gateway.jobs.list(principal.tenant, visible, cursor=cursor, limit=limit))


@router.get("/{job_id}", response_model=JobView, responses=TAGGED)
@raises("job_unknown")
def get_job(job_id: str, condition: Conditional, gateway: Shared, principal: Reader) -> Response:
    """Where a job stands, with its result once it has succeeded."""
    return condition.answer(whole_view(gateway, gateway.lifecycle.get(principal.tenant, job_id)))


@router.post("/{job_id}/retry", status_code=202)
@raises("job_unknown", "job_is_step", "job_state", "priority_forbidden", "audit_busy")
def retry_job(job_id: str, gateway: Shared, principal: Submitter) -> JobView:
    """Run a job again that failed, was cancelled or expired; a review goes on with the step that ended it.

    It costs tokens as it did when it was submitted, and asks for the priority that it has.
    """
    job = gateway.lifecycle.get(principal.tenant, job_id)
    principal.check_priority(job.priority)
    gateway.lifecycle.replay(principal.tenant, job_id, only_ask=True)  # a refusal costs nothing
    gateway.rates.spend_tokens(principal, tokens_again(gateway, job))
    gateway.lifecycle.replay(principal.tenant, job_id)
    gateway.audit.note(principal.tenant, principal.key_id, "job.retried", job_id)
    return JobView.of(gateway.lifecycle.get(principal.tenant, job_id))


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses={200: events("From the first, or the one after `Last-Event-ID`, to the job's end", JOB_EVENTS)},
    dependencies=[Waits],
)
@raises("job_unknown", stream_start)
def follow_job(
    job_id: str,
    gateway: Shared,
    principal: Reader,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Server-sent events: states, steps, progress and tokens; resumes after ``Last-Event-ID``."""
    gateway.lifecycle.get(principal.tenant, job_id)
    return event_stream(gateway, principal, job_id, last_event_id)


@router.delete("/{job_id}", status_code=202)
@raises("job_unknown", "audit_busy")
def cancel_job(job_id: str, gateway: Shared, principal: Submitter) -> JobView:
    """Cancel a job: at once while it waits, at its next step while it runs. One that has ended stays as it is."""
    gateway.lifecycle.get(principal.tenant, job_id)
    gateway.audit.note(principal.tenant, principal.key_id, "job.cancelled", job_id)
    gateway.lifecycle.cancel(principal.tenant, job_id)
    return JobView.of(gateway.lifecycle.get(principal.tenant, job_id))
