"""``/v1/runs``: the same work over thousands of documents: create, add, follow, steer, retry, results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from gateway.accepting import unless_accepted
from gateway.conditional import TAGGED, Conditional, validators
from gateway.document_sets import check_matter
from gateway.event_schemas import RUN_EVENTS
from gateway.following import event_stream, stream_start
from gateway.keyed_route import KeyedRoute
from gateway.matters import visible_document
from gateway.openapi.answers import Answers, answer, either, events, lines, text
from gateway.openapi.raises import raises
from gateway.paging import Cursor, Limit
from gateway.request_headers import IdempotencyKey, LastEventId
from gateway.run_results import RunResult, jsonl, results_tag, table
from gateway.run_schemas import (
    RunDocumentList,
    RunDocumentsRequest,
    RunDocumentView,
    RunList,
    RunRequest,
    RunView,
)
from gateway.state import Gateway, MatterReader, MatterSubmitter, Reader, Shared, Submitter
from gateway.submissions import build_run_work, request_hash, times
from gateway.waiting import Waits
from services.errors import Conflict, InvalidRequest
from services.principal import Principal
from services.runs import Run, RunSubmission

router = APIRouter(prefix="/v1/runs", tags=["runs"], route_class=KeyedRoute)

POLL_SECONDS = 5
_ENDED: Final = "What has ended so far"
_RESULTS: Final[Answers] = TAGGED | {
    200: either(
        lines("application/jsonl", RunResult, _ENDED, "ETag", "Cache-Control", "Content-Disposition"),
        text("text/csv", _ENDED),
    )
}


@router.post("", status_code=202, responses={202: answer("Location", "Retry-After", description="The run is accepted")})
@raises(
    build_run_work,
    check_matter,
    visible_document,
    times,
    "documents_required",
    "idempotency_mismatch",
    "run_full",
    "runs_full",
    "tokens_full",
    "tokens_exceeded",
    "erasing",
    "audit_busy",
)
def create_run(
    body: RunRequest,
    request: Request,
    response: Response,
    gateway: Shared,
    principal: MatterSubmitter,
    idempotency_key: IdempotencyKey = None,
) -> RunView:
    """Accept a run over the documents listed, over all of a matter, or, with `open`, over those added afterwards.

    With an ``Idempotency-Key`` a repeated request answers the same run, and adds what is missing of its documents.
    """
    key, digest = principal.idempotency(idempotency_key), request_hash(body)
    build = partial(_submission, gateway, principal, body)
    built = unless_accepted(gateway, principal, key, lambda: digest, build, gateway.runs.get)
    if isinstance(built, RunSubmission):
        named = replace(built.work, idempotency_key=key, request_hash=digest, request_id=request.state.request_id)
        run, new = gateway.runs.submit(replace(built, work=named))
        if new:
            gateway.audit.note(principal.tenant, principal.key_id, "run.created", run.id, matter=run.matter or "")
    else:
        run = built
    run = _filled(gateway, run, body)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    response.headers["Retry-After"] = str(POLL_SECONDS)
    return RunView.of(run)


@router.get("")
@raises("cursor_invalid")
def list_runs(
    gateway: Shared,
    principal: MatterReader,
    schedule: Annotated[str | None, Query(description="the runs of this schedule alone")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> RunList:
    """The newest runs, newest first; ``schedule`` keeps those of one schedule."""
    page = gateway.runs.list(principal.tenant, matters=principal.matters, schedule=schedule, cursor=cursor, limit=limit)
    return RunList(data=[RunView.of(run) for run in page.rows], next_cursor=page.next_cursor)


@router.get("/{run_id}", response_model=RunView, responses=TAGGED)
@raises("run_unknown")
def get_run(run_id: str, condition: Conditional, gateway: Shared, principal: Reader) -> Response:
    """Where a run stands: counts, pace and what is left."""
    return condition.answer(RunView.of(gateway.runs.get(principal.tenant, run_id)))


@router.get("/{run_id}/documents")
@raises("run_unknown", "cursor_invalid")
def list_run_documents(
    run_id: str,
    gateway: Shared,
    principal: Reader,
    limit: Annotated[int, Query(ge=1, le=1000, description="rows of the page")] = 200,
    cursor: Cursor = None,
) -> RunDocumentList:
    """What became of each document, in the order in which they were added."""
    page = gateway.runs.page(principal.tenant, run_id, cursor=cursor, limit=limit)
    return RunDocumentList(data=[RunDocumentView.of(row) for row in page.rows], next_cursor=page.next_cursor)


@router.post("/{run_id}/documents", status_code=202)
@raises("run_unknown", "run_state", "run_full", "tokens_full", "tokens_exceeded", visible_document)
def add_run_documents(run_id: str, body: RunDocumentsRequest, gateway: Shared, principal: Submitter) -> RunView:
    """Add documents to a run that is open; those it has already count once."""
    if principal.matters is not None:
        _check_documents(gateway, principal, body.documents)
    return RunView.of(gateway.runs.add(principal.tenant, run_id, body.documents))


@router.post("/{run_id}/seal", status_code=202)
@raises("run_unknown")
def seal_run(run_id: str, gateway: Shared, principal: Submitter) -> RunView:
    """Say that no more documents come. A run that nobody adds to for an hour is sealed by itself."""
    return RunView.of(gateway.runs.seal(principal.tenant, run_id))


@router.post("/{run_id}/pause", status_code=202)
@raises("run_unknown", "run_state", "audit_busy")
def pause_run(run_id: str, gateway: Shared, principal: Submitter) -> RunView:
    """Begin no further document; those under way go on to their end."""
    run = gateway.runs.pause(principal.tenant, run_id)
    gateway.audit.note(principal.tenant, principal.key_id, "run.paused", run_id)
    return RunView.of(run)


@router.post("/{run_id}/resume", status_code=202)
@raises("run_unknown", "run_state", "audit_busy")
def resume_run(run_id: str, gateway: Shared, principal: Submitter) -> RunView:
    """Go on after a pause."""
    run = gateway.runs.resume(principal.tenant, run_id)
    gateway.audit.note(principal.tenant, principal.key_id, "run.resumed", run_id)
    return RunView.of(run)


@router.post("/{run_id}/retry", status_code=202)
@raises("run_unknown", "run_state", "audit_busy")
def retry_run(run_id: str, gateway: Shared, principal: Submitter) -> RunView:
    """Run the documents again that did not succeed; each goes on with the step that failed."""
    run = gateway.runs.retry(principal.tenant, run_id)
    gateway.audit.note(principal.tenant, principal.key_id, "run.retried", run_id)
    return RunView.of(run)


@router.delete("/{run_id}", status_code=202)
@raises("run_unknown", "audit_busy")
def cancel_run(run_id: str, gateway: Shared, principal: Submitter) -> RunView:
    """Cancel a run: at once what waits, at its next step what is under way."""
    run = gateway.runs.cancel(principal.tenant, run_id)
    gateway.audit.note(principal.tenant, principal.key_id, "run.cancelled", run_id)
    return RunView.of(run)


@router.get(
    "/{run_id}/events",
    response_class=StreamingResponse,
    responses={200: events("From the first, or the one after `Last-Event-ID`, to the run's end", RUN_EVENTS)},
    dependencies=[Waits],
)
@raises("run_unknown", stream_start)
def follow_run(
    run_id: str,
    gateway: Shared,
    principal: Reader,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Server-sent events: each document's end with its name and the counts so far; resumes after ``Last-Event-ID``."""
    gateway.runs.get(principal.tenant, run_id)
    return event_stream(gateway, principal, run_id, last_event_id)


@router.get("/{run_id}/results", response_class=StreamingResponse, responses=_RESULTS)
@raises("run_unknown")
def get_run_results(
    run_id: str,
    condition: Conditional,
    gateway: Shared,
    principal: Reader,
    form: Annotated[
        Literal["jsonl", "csv"], Query(alias="format", description="jsonl with everything, csv for a spreadsheet")
    ] = "jsonl",
) -> Response:
    """The results of all documents that have ended so far, as JSONL with everything or as CSV with a row a document."""
    run = gateway.runs.get(principal.tenant, run_id)
    tag = results_tag(gateway, principal.tenant, run.id, form)
    if known := condition.not_modified(tag):
        return known
    lines = (jsonl if form == "jsonl" else table)(gateway, principal.tenant, run.id)
    media = "application/jsonl" if form == "jsonl" else "text/csv; charset=utf-8"
    headers = {"Content-Disposition": f'attachment; filename="{run.id}.{form}"'} | validators(tag)
    return StreamingResponse(lines, media_type=media, headers=headers)


def _submission(gateway: Gateway, principal: Principal, body: RunRequest) -> RunSubmission:
    """The run that a request asks for."""
    whole_matter = body.documents is None and not body.open
    if whole_matter and body.matter is None:
        raise InvalidRequest("name `documents` or a `matter`, or set `open`", code="documents_required")
    if whole_matter:
        check_matter(gateway, principal, str(body.matter))
    _check_documents(gateway, principal, body.documents or ())
    not_before, expires_at = times(body)
    return RunSubmission(
        body.name,
        replace(build_run_work(gateway, principal, body), not_before=not_before, expires_at=expires_at),
        whole_matter=whole_matter,
        documents=len(body.documents or ()),
        owner=principal.key_id,
        limits=principal.limits,
    )


def _filled(gateway: Gateway, run: Run, body: RunRequest) -> Run:
    """The run with the documents that it was asked for, and sealed unless others follow.

    One that is closed stays as it is, whether by who cancelled it or by another request with the same key.
    """
    if body.documents is None or run.sealed or run.state.final:
        return run
    try:
        if body.documents:
            run = gateway.runs.add(run.tenant, run.id, body.documents)
        return run if body.open else gateway.runs.seal(run.tenant, run.id)
    except Conflict:
        return gateway.runs.get(run.tenant, run.id)


def _check_documents(gateway: Gateway, principal: Principal, documents: Iterable[str]) -> None:
    """Raise ``NotFound`` for the first document that the key does not see."""
    for document in documents:
        visible_document(gateway, principal, document)
