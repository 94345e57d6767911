"""Turns every failure of a request into an RFC 9457 problem with a stable code."""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gateway.refusals import Refusals
from services import openai_answers
from services.errors import (
    CasemillError,
    Forbidden,
    Transient,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
    validation_reasons,
)

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2
_OPENAI = ("/v1/chat/", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/files", "/v1/batches")
STATUS_CODES = {
    400: "body_unreadable",
    404: "route_unknown",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "payload_too_large",
}


def speaks_openai(path: str) -> bool:
    """Whether a path is one of OpenAI's, whose clients look for the reason in ``error``."""
    return path.startswith(_OPENAI)


def problem_response(problem: dict[str, Any], request: Request, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem as an HTTP answer, with the request's id."""
    body = problem | {"instance": request.url.path, "request_id": getattr(request.state, "request_id", None)}
    if speaks_openai(request.url.path):
        body["error"] = openai_answers.error(problem["detail"], problem["code"])
    return JSONResponse(body, status_code=problem["status"], headers=headers, media_type="application/problem+json")


def methods_of(app: FastAPI, path: str) -> list[str]:
    """The methods that some route has for a path."""
    routes = [route for route in iter_route_contexts(app.routes) if route.path_regex and route.path_regex.match(path)]
    return sorted({method for route in routes for method in route.methods or ()})


def gateway_failed() -> CasemillError:
    """What a client is told of a bug; the log has the rest."""
    return CasemillError("the gateway failed; its log has the traceback")


def install_problem_handlers(app: FastAPI, refusals: Refusals) -> None:
    """Answer our errors, validation errors, unknown routes and bugs in the same shape."""

    async def on_casemill_error(request: Request, error: CasemillError) -> JSONResponse:
        headers: dict[str, str] = {}
        if isinstance(error, Transient):
            headers["Retry-After"] = str(math.ceil(error.retry_after or RETRY_AFTER_SECONDS))
        if isinstance(error, Unauthorized | Forbidden):
            try:
                await run_in_threadpool(refusals.note, request, error)
            except Unavailable as away:  # refused all the same; what cannot be written down is told
                log.error("a refusal (%s) is not in the audit log: %s", error.code, away.detail)
        if isinstance(error, Unauthorized):
            # A browser that opens a page asks for the key as the password; programs send Bearer.
            headers["WWW-Authenticate"] = 'Bearer realm="casemill", Basic realm="casemill"'
        return problem_response(error.problem(), request, headers)

    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        whole = any(item["loc"] == ("body",) for item in error.errors())
        kind = request.headers.get("content-type", "")
        if whole and kind and "json" not in kind:
            advice = "send the body as JSON with `Content-Type: application/json`"
            unsupported = UnsupportedMedia(advice, code="media_type_unsupported")
            return problem_response(unsupported.problem(), request, {"Accept": "application/json"})
        invalid = CasemillError(validation_reasons(error.errors()), code="request_invalid", status=422)
        return problem_response(invalid.problem(), request)

    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        code = STATUS_CODES.get(error.status_code, f"http_{error.status_code}")
        problem = CasemillError(str(error.detail), code=code, status=error.status_code).problem()
        headers = dict(error.headers or {})
        if error.status_code == 405:  # Starlette names those of the first route with this path alone
            headers["Allow"] = ", ".join(methods_of(app, request.url.path))
        return problem_response(problem, request, headers)

    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        request_id = getattr(request.state, "request_id", "-")
        log.error("request %s: %s", request_id, type(error).__name__, exc_info=error)
        # Starlette answers this outside of all middleware, so also of what sets the header elsewhere.
        return problem_response(gateway_failed().problem(), request, {"X-Request-ID": request_id})

    app.exception_handler(CasemillError)(on_casemill_error)
    app.exception_handler(RequestValidationError)(on_invalid)
    app.exception_handler(HTTPException)(on_http)
    app.exception_handler(Exception)(on_bug)
