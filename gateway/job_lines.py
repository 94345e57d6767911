"""Many jobs in one request: a line a job, each accepted or refused by itself and answered by a line."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from starlette.routing import Match
from starlette.types import Scope

from gateway.accepting import Built, build_or_find, submit_each
from gateway.keyed_route import KeyedRoute
from gateway.openapi.raises import raises
from gateway.problems import gateway_failed
from gateway.schemas import JobRequest, JobView, Problem
from gateway.state import Gateway
from services.errors import CasemillError, InvalidRequest, PayloadTooLarge, validation_reasons
from services.jobs import Job
from services.principal import Principal

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/x-ndjson"
MOST_LINES = 1000


class JobLine(JobRequest):
    """A job of many; its ``idempotency_key`` makes it safe to repeat, as the header does for a single one."""

    idempotency_key: str | None = Field(default=None, min_length=1, max_length=255)

    def job(self) -> JobRequest:
        """The job as it would be asked for alone, so that both are the same request under the same key."""
        return JobRequest.model_construct(**{name: getattr(self, name) for name in JobRequest.model_fields})


class LineAnswer(BaseModel):
    """What became of a line: it has a ``job``, or a ``problem`` where it was refused."""

    line: int = Field(description="number of the line, from 1")
    status: int = Field(description="the HTTP status that it would have had alone")
    job: JobView | None = None
    problem: Problem | None = None


class LinesRoute(KeyedRoute):
    """A route that is there for bodies of lines alone."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As any route, for requests of the media type."""
        kind = next((value for name, value in scope.get("headers", ()) if name == b"content-type"), b"")
        if kind.partition(b";")[0].strip().lower() != MEDIA_TYPE.encode():
            return Match.NONE, {}
        return super().matches(scope)


@raises("payload_too_large", "lines_missing")
def submit_lines(
    gateway: Gateway, principal: Principal, body: bytes, *, idempotency_key: str | None, request_id: str
) -> str:
    """Submit each line's job; answers the lines of the answer: number, status, and the job or the problem.

    With an ``idempotency_key`` each line without one of its own has one of its number: the request is safe to repeat.
    Raises ``PayloadTooLarge`` for too many lines and ``InvalidRequest`` for none; then nothing was queued.
    """
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if len(lines) > MOST_LINES:
        raise PayloadTooLarge(f"{len(lines)} jobs are more than the {MOST_LINES} of one request; send them in several")
    if not lines:
        raise InvalidRequest("the body has no line; send one JSON object a line, each a job", code="lines_missing")

    def build(number: int, line: bytes) -> Built:
        try:
            wanted = JobLine.model_validate_json(line)
        except ValidationError as error:
            raise CasemillError(validation_reasons(error.errors()), code="request_invalid", status=422) from None
        shared = f"\0{number}\0{idempotency_key}" if idempotency_key else None  # as no client's own key can be
        return build_or_find(gateway, principal, wanted.job(), wanted.idempotency_key or shared, request_id)

    results = submit_each(gateway.lifecycle, [partial(build, number, line) for number, line in lines])
    return "".join(_answer(number, result) for (number, _), result in zip(lines, results, strict=True))


def _answer(number: int, result: tuple[Job, bool] | Exception) -> str:
    if isinstance(result, Exception):
        if not isinstance(result, CasemillError):
            log.error("line %d: %s", number, type(result).__name__, exc_info=result)
            result = gateway_failed()
        told: dict[str, Any] = {"line": number, "status": result.http_status, "problem": result.problem()}
    else:
        told = {"line": number, "status": 202, "job": JobView.of(result[0]).model_dump(mode="json")}
    return json.dumps(told, ensure_ascii=False) + "\n"
