"""How every route that takes a job accepts it: idempotently, with the request's id, answered by where to look."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from gateway.schemas import JobRequest, JobView
from gateway.state import Gateway, MatterSubmitter, Shared
from gateway.submissions import build_submission
from services.principal import Principal

POLL_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Accepting:
    """Accepts jobs of one request, of a caller who may submit."""

    gateway: Gateway
    principal: Principal
    request_id: str
    response: Response
    idempotency_key: str | None

    def __call__(self, job_request: JobRequest, *, playbook_text: str | None = None) -> JobView:
        """Submit the job and answer its view. Raises as :func:`build_submission` does."""
        submission = replace(
            build_submission(self.gateway, self.principal, job_request, playbook_text=playbook_text),
            idempotency_key=self.principal.idempotency(self.idempotency_key),
            request_id=self.request_id,
        )
        # The script answers the record: a call after it could fail and make an accepted job look refused.
        job, _ = self.gateway.lifecycle.submit(submission)
        self.response.headers["Location"] = f"/v1/jobs/{job.id}"
        self.response.headers["Retry-After"] = str(POLL_SECONDS)
        return JobView.of(job)


def accepting(
    request: Request,
    response: Response,
    gateway: Shared,
    principal: MatterSubmitter,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Accepting:
    """The dependency."""
    return Accepting(gateway, principal, request.state.request_id, response, idempotency_key)


Acceptor = Annotated[Accepting, Depends(accepting)]
