"""How every route that takes work accepts it: idempotently, with the request's id, waiting for a job's end if asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Final, TypeVar

from fastapi import Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from gateway.following import wait_for_end
from gateway.job_views import whole_view
from gateway.openapi.answers import Answers, answer
from gateway.openapi.raises import raises
from gateway.prefer import Preference, read_preference
from gateway.request_headers import IdempotencyKey
from gateway.schemas import JobRequest, JobView
from gateway.state import Gateway, MatterSubmitter, Shared
from gateway.submissions import INLINE_BYTES, build_submission, request_hash
from services.errors import CasemillError, or_error
from services.jobs import PROMPTS, Device, Job, Submission
from services.lifecycle import Lifecycle
from services.principal import Principal

POLL_SECONDS = 1
Made = TypeVar("Made")
Accepted = TypeVar("Accepted")
Built = Submission | tuple[Job, bool]
"""What a request comes to: a job to be submitted, or one that was accepted before."""
ACCEPTED: Final[Answers] = {
    202: answer("Location", "Retry-After", "Preference-Applied", description="The job is accepted, and on the disk"),
    200: answer(
        "Location",
        "Preference-Applied",
        model=JobView,
        description="The job has ended while the request waited for it, as `Prefer: wait=N` asked",
    ),
}
"""The answers of a route that accepts a job."""


@dataclass(frozen=True, slots=True)
class Accepting:
    """Accepts jobs of one request, of a caller who may submit."""

    gateway: Gateway
    principal: Principal
    request_id: str
    idempotency_key: str | None
    preference: Preference
    small: bool

    async def __call__(self, job_request: JobRequest, *, playbook_text: str | None = None) -> Response:
        """Submit the job and answer its :class:`JobView`. Raises as :func:`build_submission` does.

        With ``Prefer: wait=N`` the answer is 200 with the job once it has ended, or 202 when it has not in time.
        """
        build = partial(self._build, job_request, playbook_text)
        # The record is what the script answers: a call after it could fail and make an accepted job look refused.
        if self._from_request_alone(job_request):
            job, _ = await self.gateway.submitting(build)
        else:
            job, _ = await run_in_threadpool(self._submit, build)
        headers = {"Location": f"/v1/jobs/{job.id}"}
        ended = await self._ended(job)
        if applied := self.preference.applied(ended=ended is not None):
            headers["Preference-Applied"] = applied
        if ended is None:
            headers["Retry-After"] = str(POLL_SECONDS)
        view = ended or JobView.of(job)
        return Response(view.model_dump_json(), 200 if ended else 202, headers, media_type="application/json")

    def _from_request_alone(self, wanted: JobRequest) -> bool:
        """Whether a job is built without looking things up: then many go together, and none holds up the others."""
        looks_up = wanted.callback is not None or wanted.device != Device.ANY
        return (
            self.small
            and wanted.type in PROMPTS
            and not looks_up
            and not self.gateway.rates.bound_tokens(self.principal)
        )

    def _build(self, job_request: JobRequest, playbook_text: str | None) -> Built:
        return build_or_find(
            self.gateway, self.principal, job_request, self.idempotency_key, self.request_id, playbook_text
        )

    def _submit(self, build: Callable[[], Built]) -> tuple[Job, bool]:
        (answer,) = submit_each(self.gateway.lifecycle, [build])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _ended(self, job: Job) -> JobView | None:
        """The view of the job that has ended while the client waited, and ``None`` if that cannot be known."""
        if not self.preference.wait:
            return None
        try:
            ended = await wait_for_end(self.gateway, job.tenant, job.id, self.preference.wait)
            return await run_in_threadpool(whole_view, self.gateway, ended) if ended else None
        except CasemillError:  # the job is accepted all the same
            return None


def build_or_find(
    gateway: Gateway,
    principal: Principal,
    wanted: JobRequest,
    idempotency_key: str | None,
    request_id: str,
    playbook_text: str | None = None,
) -> Built:
    """The submission of a request, or the job that the same request was accepted as before."""
    key = principal.idempotency(idempotency_key)
    built = unless_accepted(
        gateway,
        principal,
        key,
        partial(request_hash, wanted, playbook_text or ""),
        partial(build_submission, gateway, principal, wanted, playbook_text=playbook_text),
        gateway.lifecycle.get,
    )
    if isinstance(built, Submission):
        return replace(built, idempotency_key=key, request_id=request_id)
    return built, False


def unless_accepted(
    gateway: Gateway,
    principal: Principal,
    key: str | None,
    digest: Callable[[], str],
    build: Callable[[], Made],
    get: Callable[[str, str], Accepted],
) -> Made | Accepted:
    """What ``build`` makes of a request; where that refuses it, what the same request was accepted as before.

    A repeat, by its ``key`` and the request's ``digest``, is answered so also where the request would be refused now:
    its models' workers may be away since, its tokens used up, or what it names erased. ``get`` reads what was accepted
    by tenant and id. Where building costs tokens, what was accepted is looked for first: a repeat costs none.
    """

    def accepted() -> Accepted | None:
        known = key and gateway.lifecycle.accepted(principal.tenant, key, digest())
        return get(principal.tenant, known) if known else None

    if gateway.rates.bound_tokens(principal) and (before := accepted()):
        return before
    try:
        return build()
    except CasemillError:
        if before := accepted():
            return before
        raise


def submit_each(lifecycle: Lifecycle, builders: Sequence[Callable[[], Built]]) -> list[tuple[Job, bool] | Exception]:
    """Build jobs and submit them together, as :meth:`Lifecycle.submit_each`; what one raises stands in its place."""
    wanted = [or_error(build) for build in builders]
    accepted = iter(lifecycle.submit_each([one for one in wanted if isinstance(one, Submission)]))
    return [next(accepted) if isinstance(one, Submission) else one for one in wanted]


@raises(
    "waiting_full",
    "idempotency_mismatch",
    "backlog_full",
    "time_past",
    "document_unknown",
    "erasing",
    "storage_unavailable",
)
async def accepting(
    request: Request,
    gateway: Shared,
    principal: MatterSubmitter,
    idempotency_key: IdempotencyKey = None,
    prefer: Annotated[
        list[str] | None,
        Header(
            alias="Prefer",
            description="`wait=10` keeps the request open until the job has ended, for 10 seconds at most; "
            "`respond-async` does not wait (RFC 7240)",
        ),
    ] = None,
) -> AsyncGenerator[Accepting]:
    """The dependency."""
    preference = read_preference(", ".join(prefer or ()), gateway.settings.max_wait_seconds)
    length = request.headers.get("content-length", "")
    small = length.isdecimal() and int(length) <= INLINE_BYTES
    with gateway.waiting.one(principal.tenant) if preference.wait else nullcontext():
        yield Accepting(gateway, principal, request.state.request_id, idempotency_key, preference, small)


Acceptor = Annotated[Accepting, Depends(accepting, scope="request")]
