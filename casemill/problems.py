"""What goes wrong, as exceptions: the gateway's problems (RFC 9457), its silence, and jobs without a result.

Problem
├── Unauthorized   401   no key, or one that is not known or has ended
├── Forbidden      403   the key may not do this
├── NotFound       404   nothing with that id is visible to this key
├── Conflict       409   the thing is in a state that does not allow this
├── Invalid        4xx   (and 3xx) the request, or the document in it, cannot be accepted as it is
├── Throttled      429   more than the key or the queue takes now; ``retry_after`` says when
├── Unavailable    5xx   the gateway, or what it depends on, is away or failed
│   └── Unreachable      no answer came, or not all of it
├── JobFailed            a job or run ended without what was wanted of it; ``code`` is its problem's
└── Unfinished           the time that you gave has passed, and the work goes on; a ``TimeoutError`` too
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from casemill.steps import Answer, Lost


class Problem(Exception):
    """Casemill could not do what was asked.

    Attributes:
        code: what happened, stable and meant for programs, e.g. ``document_unreadable``.
        detail: the same for a person, with what to do.
        status: the HTTP status, ``None`` where no answer came.
        retry_after: seconds after which it may succeed, where that is known.
        retryable: whether the same may succeed later.
        request_id: stands in the gateway's and the workers' logs; quote it when you ask the operator.
        body: all members of the problem, as they came.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int | None = None,
        retry_after: float | None = None,
        retryable: bool = False,
        request_id: str | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{detail} [{code}]")
        self.detail = detail
        self.code = code
        self.status = status
        self.retry_after = retry_after
        self.retryable = retryable
        self.request_id = request_id
        self.body = dict(body or {})

    def __reduce__(self) -> Any:
        """So that it crosses to another process."""
        return _restored, (type(self), self.args), vars(self)


class Unauthorized(Problem):
    """The request carries no key, or one that is not known or has ended."""


class Forbidden(Problem):
    """The key is known and may not do this."""


class NotFound(Problem):
    """Nothing with that id is visible to this key."""


class Conflict(Problem):
    """The thing is in a state that does not allow this."""


class Invalid(Problem):
    """The request, or the document in it, cannot be accepted, however often it is sent."""


class Throttled(Problem):
    """More than the key may use or the queue takes now; ``retry_after`` says when it may succeed."""


class Unavailable(Problem):
    """The gateway, or something that it depends on, is away or failed."""


class Unreachable(Unavailable):
    """No answer came, or not all of it."""


class JobFailed(Problem):
    """A job ended without a result; ``job`` is the :class:`casemill.Job`, ``code`` says why it has none."""

    def __init__(self, detail: str, *, job: Any, **members: Any) -> None:
        super().__init__(detail, **members)
        self.job = job


class Unfinished(Problem, TimeoutError):
    """The time that you gave has passed, and the job or run with the id ``work`` goes on: wait again, or cancel it."""

    def __init__(self, detail: str, *, work: str, **members: Any) -> None:
        super().__init__(detail, **members)
        self.work = work


def _restored(kind: type[Problem], args: tuple[Any, ...]) -> Problem:
    return kind.__new__(kind, *args)


_BY_STATUS: dict[int, type[Problem]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: Throttled,
}


def problem_of(outcome: Answer | Lost) -> Problem:
    """The problem of an answer that refuses, or of none."""
    if isinstance(outcome, Lost):
        return Unreachable(outcome.reason, code="gateway_away", retryable=True)
    if 300 <= outcome.status < 400:
        to = outcome.headers.get("location", "elsewhere")
        detail = (
            f"what answers there is no gateway, but sends on to {to}; give the client the url of the gateway itself"
        )
        return Invalid(detail, code="redirected", status=outcome.status)
    try:
        body: Any = json.loads(outcome.body)
    except ValueError:
        body = None
    if not (isinstance(body, dict) and "code" in body and "detail" in body):  # not ours: of a proxy before the gateway
        text = outcome.body[:200].decode("utf-8", "replace")
        body = {"code": f"http_{outcome.status}", "detail": f"the gateway answered {outcome.status}: {text}"}
    return problem_in(cast("dict[str, Any]", body), outcome.status, outcome.headers)


def problem_in(body: Mapping[str, Any], status: int, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem that a JSON object describes."""
    headers = headers or {}
    asked = headers.get("retry-after", "")
    kind = _BY_STATUS.get(status, Invalid if status < 500 else Unavailable)
    return kind(
        str(body["detail"]),
        code=str(body["code"]),
        status=status,
        retry_after=float(asked) if asked.isascii() and asked.isdigit() else body.get("retry_after"),
        retryable=bool(body.get("retryable", issubclass(kind, Throttled | Unavailable))),
        request_id=body.get("request_id") or headers.get("x-request-id"),
        body=body,
    )
