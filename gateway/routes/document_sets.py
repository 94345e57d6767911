"""``/v1/search``, ``/v1/compare``, ``/v1/duplicates`` and ``/v1/counts``: jobs over several documents, with own bodies.

With an ``Idempotency-Key`` a repeated request answers the same job.
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from gateway.accepting import ACCEPTED, Acceptor
from gateway.document_sets import CompareRequest, CountRequest, DuplicatesRequest, SearchRequest, set_job
from gateway.keyed_route import KeyedRoute
from gateway.openapi.raises import raises
from gateway.schemas import JobView
from gateway.submissions import ANY_MODEL, ANY_PLAYBOOK, ANY_WORK

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=KeyedRoute)


@router.post("/search", status_code=202, response_model=JobView, responses=ACCEPTED)
@raises(*ANY_WORK, *ANY_MODEL, set_job)
async def search_documents(body: SearchRequest, accept: Acceptor) -> Response:
    """Find the clauses of documents, a matter or a clause bank that fit; the job's result has the hits."""
    return await accept(body.job())


@router.post("/compare", status_code=202, response_model=JobView, responses=ACCEPTED)
@raises(*ANY_WORK, set_job)
async def compare_documents(body: CompareRequest, accept: Acceptor) -> Response:
    """Compare two versions of a document clause by clause; the job's result has the changes."""
    return await accept(body.job())


@router.post("/duplicates", status_code=202, response_model=JobView, responses=ACCEPTED)
@raises(*ANY_WORK, set_job)
async def find_duplicates(body: DuplicatesRequest, accept: Acceptor) -> Response:
    """Find near-duplicates; the job's result has the pairs with their exact similarity and the clusters they form.

    What was read for an earlier comparison is not read again.
    """
    return await accept(body.job())


@router.post("/counts", status_code=202, response_model=JobView, responses=ACCEPTED)
@raises(*ANY_WORK, *ANY_PLAYBOOK, set_job)
async def count_findings(body: CountRequest, accept: Acceptor) -> Response:
    """Count a playbook's findings; the job's result has how many of each category each document has.

    The texts stay on the worker for the next playbook over the same documents, which are then not loaded again. With
    `device` `gpu` they are counted there.
    """
    return await accept(body.job())
