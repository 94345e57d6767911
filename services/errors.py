"""Every failure Casemill reports on purpose: one tree that gives code, HTTP status and message to all parts.

CasemillError
├── Permanent                     trying again cannot help
│   ├── InvalidRequest     422    the request names something that does not exist or cannot be
│   │   ├── NotFound       404
│   │   ├── Conflict       409
│   │   ├── PayloadTooLarge 413
│   │   └── UnsupportedMedia 415
│   ├── Unauthorized       401
│   ├── Forbidden          403
│   ├── DocumentError      422    the document cannot be read, and why
│   └── ModelError         422    the model cannot be loaded, and why
└── Transient              503    the same request may succeed later
    ├── Unavailable        503    a dependency is away
    ├── DeviceLost         503    the GPU answers this process no more; another one may try
    ├── BacklogFull        429
    └── RateLimited        429    more requests or tokens a minute than the key or its tenant may use
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, ParamSpec, TypeVar

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class CasemillError(Exception):
    """Casemill could not do what was asked.

    ``code`` is stable and meant for programs; ``detail`` tells a person what happened and what to do. ``retry_after``:
    seconds after which it may succeed, where that is known.
    """

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal"

    def __init__(
        self, detail: str, *, code: str | None = None, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.http_status = status or self.status
        self.retry_after = retry_after

    def problem(self) -> dict[str, Any]:
        """RFC 9457 members of this error, as they stand in HTTP answers and in a failed job's ``error``."""
        return {
            "type": f"urn:casemill:problem:{self.code}",
            "title": self.code.replace("_", " "),
            "status": self.http_status,
            "code": self.code,
            "detail": self.detail,
            "retryable": isinstance(self, Transient),
        } | ({"retry_after": self.retry_after} if self.retry_after else {})


class Permanent(CasemillError):
    """The request cannot succeed as it is, however often it is repeated."""

    status = 422
    default_code = "invalid_request"


class InvalidRequest(Permanent):
    """The request names something that does not exist or cannot be."""


class NotFound(InvalidRequest):
    """Nothing with that id is visible to this key."""

    status = 404
    default_code = "not_found"


def unknown(what: str, name: str) -> NotFound:
    """The one answer for a job, document, run or schedule that is not there, or that the caller may not see."""
    return NotFound(f"there is no {what} {name!r}", code=f"{what}_unknown")


class Conflict(InvalidRequest):
    """The thing is in a state that does not allow this."""

    status = 409
    default_code = "conflict"


class PayloadTooLarge(InvalidRequest):
    """The body is larger than the limit."""

    status = 413
    default_code = "payload_too_large"


class UnsupportedMedia(InvalidRequest):
    """The content is of no type that Casemill reads."""

    status = 415
    default_code = "document_type_unknown"


class Unauthorized(Permanent):
    """The request carries no key, or one that is not known."""

    status = 401
    default_code = "unauthorized"


class Forbidden(Permanent):
    """The key is known and may not do this."""

    status = 403
    default_code = "forbidden"


class DocumentError(Permanent):
    """The document cannot be read."""

    status = 422
    default_code = "document_unreadable"


class ModelError(Permanent):
    """The model cannot be loaded or cannot do what was asked of it."""

    status = 422
    default_code = "model_unusable"


class Transient(CasemillError):
    """The same request may succeed later; a job is tried again after ``retry_after`` seconds, ``None``: soon."""

    status = 503
    default_code = "unavailable"


class DeviceLost(Transient):
    """The GPU answers this process no more; the worker ends and the job is tried by another process."""

    default_code = "gpu_lost"


class Unavailable(Transient):
    """Something that Casemill depends on is away."""


class BacklogFull(Transient):
    """More work waits than the limits allow."""

    status = 429
    default_code = "backlog_full"


class RateLimited(Transient):
    """More in this minute than the key or its tenant may use."""

    status = 429
    default_code = "rate_limited"

    def __init__(self, detail: str, *, retry_after: float, rates: tuple[Any, ...] = ()) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.rates = rates


def from_problem(problem: dict[str, Any]) -> CasemillError:
    """The error that :meth:`CasemillError.problem` wrote, for failures that cross a process boundary."""
    kind = Transient if problem.get("retryable") else Permanent
    return kind(
        str(problem["detail"]),
        code=str(problem["code"]),
        status=int(problem["status"]),
        retry_after=problem.get("retry_after"),
    )


def validation_reasons(found: Sequence[Any], *place: str) -> str:
    """Where and why a request is invalid, without echoing the input, which may be a document's text."""
    return "; ".join(f"{'.'.join(str(part) for part in (*place, *item['loc']))}: {item['msg']}" for item in found[:10])


def or_error(call: Callable[Given, Answer], *given: Given.args, **named: Given.kwargs) -> Answer | Exception:
    """What a call answers or raises: one of several must not stop the others."""
    try:
        return call(*given, **named)
    except Exception as error:
        return error
