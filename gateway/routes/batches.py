"""OpenAI's ``/v1/batches``: thousands of requests as the lines of a file, answered behind all other work."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request

from gateway.accepting import unless_accepted
from gateway.batch_schemas import After, BatchList, BatchRequest, BatchView
from gateway.keyed_route import KeyedRoute
from gateway.openapi.raises import raises
from gateway.request_headers import IdempotencyKey
from gateway.state import Gateway, Reader, Shared, Submitter
from gateway.submissions import request_hash
from services.batches import BatchSubmission
from services.errors import InvalidRequest
from services.principal import Principal

router = APIRouter(prefix="/v1/batches", tags=["openai"], route_class=KeyedRoute)


@router.post("")
@raises(
    *("file_unknown", "purpose_wrong", "idempotency_mismatch"),
    *("runs_full", "tokens_full", "tokens_exceeded", "audit_busy"),
)
def create_batch(
    body: BatchRequest,
    request: Request,
    gateway: Shared,
    principal: Submitter,
    idempotency_key: IdempotencyKey = None,
) -> BatchView:
    """Accept a batch over an uploaded file; its lines are checked first, then they run at the priority ``bulk``."""
    key, digest = principal.idempotency(idempotency_key), request_hash(body)
    build = partial(_submission, gateway, principal, body)
    built = unless_accepted(gateway, principal, key, lambda: digest, build, gateway.batches.get)
    if not isinstance(built, BatchSubmission):
        return BatchView.of(built)
    named = replace(built, idempotency_key=key, request_hash=digest, request_id=request.state.request_id)
    batch, new = gateway.batches.submit(named)
    if new:
        gateway.audit.note(principal.tenant, principal.key_id, "batch.created", batch.id)
    return BatchView.of(batch)


@router.get("")
@raises("after_unknown")
def list_batches(
    gateway: Shared,
    principal: Reader,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100, description="batches of the page")] = 20,
) -> BatchList:
    """The newest batches; ``after`` is the last id of the page before."""
    batches, more = gateway.batches.list(principal.tenant, after=after, limit=limit)
    return BatchList.of([BatchView.of(batch) for batch in batches], more)


@router.get("/{batch_id}")
@raises("batch_unknown")
def get_batch(batch_id: str, gateway: Shared, principal: Reader) -> BatchView:
    """Where a batch stands."""
    return BatchView.of(gateway.batches.get(principal.tenant, batch_id))


@router.post("/{batch_id}/cancel")
@raises("batch_unknown", "batch_state", "audit_busy")
def cancel_batch(batch_id: str, gateway: Shared, principal: Submitter) -> BatchView:
    """Begin no further line; what is answered by then stands in the output file."""
    batch = gateway.batches.cancel(principal.tenant, batch_id)
    gateway.audit.note(principal.tenant, principal.key_id, "batch.cancelled", batch_id)
    return BatchView.of(batch)


def _submission(gateway: Gateway, principal: Principal, body: BatchRequest) -> BatchSubmission:
    """The batch that a request asks for. Raises ``NotFound`` or ``InvalidRequest`` for a file that none can be of."""
    file = gateway.files.get(principal.tenant, body.input_file_id)
    if file.purpose != "batch":
        raise InvalidRequest(f"the purpose of {file.id} is {file.purpose}, not batch", code="purpose_wrong")
    return BatchSubmission(
        tenant=principal.tenant,
        endpoint=body.endpoint,
        file=file.id,
        metadata=body.metadata,
        owner=principal.key_id,
        limits=principal.limits,
        lasts=body.output_expires_after.seconds,
    )
