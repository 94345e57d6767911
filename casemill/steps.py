"""An operation as plain data: the steps it asks for and what comes of each, without a word of how they are carried out.

An operation is a generator, a *flow*: it yields steps, is sent what came of each, and returns its value. It does no
input or output, so that the same flow serves whoever blocks and whoever awaits (``casemill.drivers``).
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote

T = TypeVar("T")
E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Request:
    """Ask, and read the whole answer: an :class:`Answer` or :class:`Lost` comes of it. Closes what was open before.

    ``repeatable``: whether sending it twice does the same as once. ``timeout``: seconds of silence after which it is
    lost, ``None`` for the client's own.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content: bytes | None = None
    repeatable: bool = False
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Ask, and leave the answer's body to be read piece by piece; closes what was open before. Comes out as a request.

    An answer that refuses (none of 200 to 299) has its body at once.
    """

    request: Request


@dataclass(frozen=True, slots=True)
class Read:
    """Read on in what is open: comes out as bytes, ``None`` at the end, or :class:`Lost`."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let ``seconds`` pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit(Generic[E_co]):
    """Hand an item to whoever iterates; an operation that nobody iterates emits into the void."""

    item: E_co


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway answered; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer came, or not all of it; ``sent``: the request, or a part of it, may have arrived all the same."""

    reason: str
    sent: bool


Step: TypeAlias = Request | Open | Read | Pause | Emit[Any]
Flow: TypeAlias = Generator[Step, Any, T]
Emitting: TypeAlias = Generator[Request | Open | Read | Pause | Emit[E_co], Any, T]


def request(
    method: str,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    body: Any = None,
    content: bytes | None = None,
    content_type: str | None = None,
    idempotency_key: str | None = None,
    repeatable: bool = False,
) -> Request:
    """A request with a JSON ``body`` or other ``content``.

    It is repeatable by its method, by its idempotency key, or where that is said.
    """
    headers: dict[str, str] = {}
    if body is not None:
        content, content_type = encoded(body), "application/json"
    if content_type:
        headers["Content-Type"] = content_type
    if idempotency_key:
        headers["Idempotency-Key"] = idempotency_key
    given = {name: value for name, value in (params or {}).items() if value is not None}
    repeatable = repeatable or idempotency_key is not None or method.upper() not in ("POST", "PATCH")
    return Request(method, path, given, headers, content, repeatable)


def encoded(body: Any) -> bytes:
    """JSON as it is sent, on one line; times as ISO 8601."""
    return json.dumps(body, default=_written).encode()


def path_of(*parts: str) -> str:
    """The path of a thing by its id, whatever characters that has."""
    return "/".join(("/v1", *(quote(part, safe="") for part in parts)))


def _written(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")
