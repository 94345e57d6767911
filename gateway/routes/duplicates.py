"""``/v1/duplicates``: near-duplicates among documents, as a job like those of ``/v1/jobs``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from gateway.routes.jobs import submit_job
from gateway.schemas import DuplicatesRequest, JobView
from gateway.state import Shared, Submitter

router = APIRouter(prefix="/v1/duplicates", tags=["duplicates"])


@router.post("", status_code=202)
def submit_duplicates(
    body: DuplicatesRequest,
    request: Request,
    response: Response,
    gateway: Shared,
    principal: Submitter,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JobView:
    """Accept a comparison; the job's result has the pairs with their exact similarity and the clusters they form.

    What was read for an earlier comparison is not read again. With an ``Idempotency-Key`` a repeated request answers
    the same job.
    """
    return submit_job(body.as_job(), request, response, gateway, principal, idempotency_key)
