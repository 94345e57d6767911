"""The flows that every operation is made of: an answer with its retries, its JSON, a body in pieces, and pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from casemill.models import Page
from casemill.problems import Unavailable, problem_of
from casemill.retry import RetryPolicy, Tries
from casemill.steps import Answer, Emit, Emitting, Flow, Lost, Open, Pause, Read, Request, request

V = TypeVar("V", bound=BaseModel)

# What the gateway, or a proxy before it, answers when the same request may succeed a moment later.
_PASSING = (502, 503, 504)


def answered(step: Request | Open, tries: Tries) -> Flow[Answer]:
    """The answer to a request, which is sent again for as long as that is safe; raises the problem it ends with."""
    asked = step.request if isinstance(step, Open) else step
    while True:
        outcome: Answer | Lost = yield step
        if isinstance(outcome, Answer) and 200 <= outcome.status < 300:
            return outcome
        problem = problem_of(outcome)
        if not _safe_again(asked, outcome):
            raise problem
        yield Pause(tries.pause(problem))


def json_of(asked: Request, tries: Tries) -> Flow[Any]:
    """The JSON of the answer, ``None`` where it has no body."""
    answer = yield from answered(asked, tries)
    return loaded(answer.body) if answer.body else None


def view_of(view: type[V], asked: Request, tries: Tries) -> Flow[V]:
    """The answer as what it is."""
    return viewed(view, (yield from json_of(asked, tries)))


def loaded(body: bytes) -> Any:
    """The JSON of a body; raises ``Unavailable`` (``answer_invalid``) where it is none."""
    try:
        return json.loads(body)
    except ValueError:
        detail = "what answers is no gateway of Casemill, as its answer is no JSON; give the client the gateway's url"
        raise Unavailable(detail, code="answer_invalid") from None


def viewed(view: type[V], told: Any) -> V:
    """What was told, as what it is; raises ``Unavailable`` (``answer_invalid``) where it is none."""
    try:
        return view.model_validate(told)
    except ValidationError as error:
        # Without what was told: that may be of a document, and problems end in logs.
        wrong = ", ".join(".".join(map(str, each["loc"])) or "all" for each in error.errors(include_input=False))
        detail = f"the answer is no {view.__name__} ({wrong}); take the client of the gateway's own version"
        raise Unavailable(detail, code="answer_invalid") from None


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
        page = yield from view_of(Page, request("GET", path, params={**params, "cursor": cursor}), retry.begin())
        for row in page.data:
            yield Emit(viewed(view, row))
        cursor = page.next_cursor
        if cursor is None:
            return


def _safe_again(asked: Request, outcome: Answer | Lost) -> bool:
    """Whether a request that failed so can be sent again without being done twice."""
    if isinstance(outcome, Lost):
        return asked.repeatable or not outcome.sent
    # 429 is said before anything is done.
    return outcome.status == 429 or (asked.repeatable and outcome.status in _PASSING)
