"""``/v1/search`` and ``/v1/compare``: jobs over several documents, with a body of their own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from gateway.document_sets import CompareRequest, SearchRequest
from gateway.routes.jobs import accept
from gateway.schemas import JobView
from gateway.state import Shared, Submitter

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.post("/search", status_code=202)
def search(
    body: SearchRequest,
    request: Request,
    response: Response,
    gateway: Shared,
    principal: Submitter,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JobView:
    """Find the clauses of documents, a matter or a clause bank that fit; the job's result has the hits."""
    return accept(gateway, principal, body.job(), request, response, idempotency_key)


@router.post("/compare", status_code=202)
def compare(
    body: CompareRequest,
    request: Request,
    response: Response,
    gateway: Shared,
    principal: Submitter,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JobView:
    """Compare two versions of a document clause by clause; the job's result has the changes."""
    return accept(gateway, principal, body.job(), request, response, idempotency_key)
