"""``/v1/search``, ``/v1/compare`` and ``/v1/duplicates``: jobs over several documents, with a body of their own.

With an ``Idempotency-Key`` a repeated request answers the same job.
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from gateway.accepting import ACCEPTED, Acceptor
from gateway.document_sets import CompareRequest, DuplicatesRequest, SearchRequest, set_job
from gateway.keyed_route import KeyedRoute
from gateway.openapi.raises import raises
from gateway.schemas import JobView
from gateway.submissions import ANY_MODEL, ANY_WORK

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
