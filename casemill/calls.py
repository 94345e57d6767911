"""The flows that every operation is made of: an answer with its retries, its JSON, a body in pieces, and pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from casemill.models import View
from casemill.problems import Unavailable, problem_of
from casemill.retry import RetryPolicy, Tries
from casemill.steps import Answer, Emit, Emitting, Flow, Lost, Open, Pause, Read, Request, request

V = TypeVar("V", bound=View)

# What the gateway, or a proxy before it, answers when the same request may succeed a moment later.
_PASSING = (502, 503, 504)


def answered(step: Request | Open, tries: Tries) -> Flow[Answer]:
    """The answer to a request, which is sent again for as long as that is safe; raises the problem it ends with."""
    asked = step.request if isinstance(step, Open) else step
    while True:
        outcome: Answer | Lost = yield step
        if isinstance(outcome, Answer) and outcome.status < 400:
            return outcome
        problem = problem_of(outcome)
        if not _safe_again(asked, outcome):
            raise problem
        yield Pause(tries.pause(problem))


def json_of(asked: Request, tries: Tries) -> Flow[Any]:
    """The JSON of the answer, ``None`` where it has no body."""
    answer = yield from answered(asked, tries)
    if not answer.body:
        return None
    try:
        return json.loads(answer.body)
    except ValueError:
        raise Unavailable(
            f"what answers {asked.method} {asked.path} is no gateway of Casemill: its answer is no JSON",
            code="answer_invalid",
            status=answer.status,
        ) from None


def view_of(view: type[V], asked: Request, tries: Tries) -> Flow[V]:
    """The answer as what it is."""
    return view.model_validate((yield from json_of(asked, tries)))


def pieces(asked: Request, tries: Tries) -> Emitting[bytes, None]:
    """Emit the body as it comes. Only its beginning is tried again; what breaks off later raises ``Unreachable``."""
    yield from answered(Open(asked), tries)
    while (piece := (yield from read_on())) is not None:
        yield Emit(piece)


def read_on() -> Flow[bytes | None]:
    """The next piece of what is open, ``None`` at its end; raises ``Unreachable`` where it breaks off."""
    outcome: bytes | Lost | None = yield Read()
    if isinstance(outcome, Lost):
        raise problem_of(outcome)
    return outcome


def pages(path: str, params: Mapping[str, Any], view: type[V], retry: RetryPolicy) -> Emitting[V, None]:
    """Emit each row of a list. A page is asked for once the rows before it were taken."""
    cursor: str | None = None
    while True:
        page = yield from json_of(request("GET", path, params={**params, "cursor": cursor}), retry.begin())
        for row in page["data"]:
            yield Emit(view.model_validate(row))
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _safe_again(asked: Request, outcome: Answer | Lost) -> bool:
    """Whether a request that failed so can be sent again without being done twice."""
    if isinstance(outcome, Lost):
        return asked.repeatable or not outcome.sent
    # 429 is said before anything is done.
    return outcome.status == 429 or (asked.repeatable and outcome.status in _PASSING)
