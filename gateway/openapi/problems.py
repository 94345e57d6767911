"""The problems of an operation as answers: by status, each code with what it means and an example."""

from __future__ import annotations

import http
from collections.abc import Iterable
from typing import Any, Final

from pydantic import Field

from gateway.openapi.answers import OpenAIError, ref
from gateway.openapi.headers import header_refs
from gateway.openapi.raises import CODES, Problem
from gateway.schemas import Problem as ProblemView
from services import openai_answers
from services.errors import CasemillError, Transient

MEDIA_TYPE: Final = "application/problem+json"
ALWAYS: Final[frozenset[Problem]] = frozenset({("internal", 500)})
"""What any operation can answer."""
WITH_BODY: Final[frozenset[Problem]] = frozenset(
    {("payload_too_large", 413), ("request_timeout", 408), ("body_unreadable", 400), ("request_invalid", 422)}
)
WITH_JSON: Final[frozenset[Problem]] = frozenset({("media_type_unsupported", 415)})
WITH_PARAMETERS: Final[frozenset[Problem]] = frozenset({("request_invalid", 422)})
WITH_PATH: Final[frozenset[Problem]] = frozenset({("route_unknown", 404)})
"""A slash in an id makes it another path."""
_HEADERS: Final = {
    401: ("WWW-Authenticate",),
    415: ("Accept?",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
EXAMPLES: Final[dict[str, dict[str, Any]]] = {}
"""The examples that answers refer to, each as the first operation with the code answers it."""
RESPONSES: Final[dict[str, dict[str, Any]]] = {}
"""The answers referred to, by status and codes: ``openai`` in its form, ``limited`` with a key's limits."""
MOST_NAMED: Final = 4
"""Codes of an answer that is kept by their names; those of more codes are of one or two operations."""
_REQUEST_ID: Final = "req_3f0c9a7be15d48c2a6e19b70"


class AnsweredProblem(ProblemView):
    """Why a request was refused or failed (RFC 9457)."""

    instance: str = Field(description="path of the request")
    request_id: str | None = Field(description="the `X-Request-ID` of the answer")


class OpenAIProblem(AnsweredProblem):
    """Why a request was refused or failed, for OpenAI's clients too."""

    error: OpenAIError


def problem_answers(problems: Iterable[Problem], path: str, rates: tuple[str, ...], *, openai: bool) -> dict[str, Any]:
    """The answers of an operation, by status, with the headers ``rates`` once the key is known.

    ``path`` is what its examples say they are of. Answers of few codes are those of many operations: each is kept once.
    """
    by_status: dict[int, list[str]] = {}
    for code, status in sorted(problems, key=lambda problem: (problem[1], list(CODES).index(problem[0]))):
        by_status.setdefault(status, []).append(code)
    answers: dict[str, Any] = {}
    for status, codes in by_status.items():
        told = () if status == 401 else rates
        answer = _answer(status, codes, path, told, openai=openai)
        if len(codes) <= MOST_NAMED:
            name = "-".join([str(status), *codes, *(["openai"] if openai else []), *(["limited"] if told else [])])
            RESPONSES[name] = answer
            answer = {"$ref": f"#/components/responses/{name}"}
        answers[str(status)] = answer
    return answers


def _answer(status: int, codes: list[str], path: str, rates: tuple[str, ...], *, openai: bool) -> dict[str, Any]:
    whole = ref(OpenAIProblem if openai else AnsweredProblem)
    these = {"type": "object", "properties": {"code": {"enum": codes}, "status": {"const": status}}}
    return {
        "description": f"{http.HTTPStatus(status).phrase}:\n"
        + "\n".join(f"- `{code}`: {CODES[code].means}" for code in codes),
        "headers": header_refs("X-Request-ID", *_HEADERS.get(status, ()), *rates),
        "content": {
            MEDIA_TYPE: {
                "schema": {"allOf": [whole, these]},
                "examples": {code: _example(code, status, path, openai=openai) for code in codes},
            }
        },
    }


def _example(code: str, status: int, path: str, *, openai: bool) -> dict[str, str]:
    """A reference to a problem as it is answered; ``path`` is what it is of, where it is the first with the code."""
    kind = Transient if status in (429, 503) else CasemillError
    retry_after = 7.5 if code == "rate_limited" else None
    problem = kind(CODES[code].detail, code=code, status=status, retry_after=retry_after).problem()
    problem |= {"instance": path, "request_id": _REQUEST_ID}
    problem |= {"error": openai_answers.error(problem["detail"], code)} if openai else {}
    name = f"{code}-{status}-openai" if openai else f"{code}-{status}"
    EXAMPLES.setdefault(name, {"summary": code, "value": problem})
    return {"$ref": f"#/components/examples/{name}"}
