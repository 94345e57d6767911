"""A gateway that answers as a test says, asked by the blocking or the awaiting client; time passes by itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import casemill.drivers
import casemill.following
import casemill.retry
import casemill.work
from tests.both_clients import ask

URL, KEY = "http://gateway.test", "cm_x_y"


@dataclass
class Clock:
    """Seconds that pass where a client sleeps and where a script says so."""

    now: float = 1000.0
    pauses: list[float] = field(default_factory=list[float])

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def install(self, patch: pytest.MonkeyPatch) -> None:
        async def sleep(seconds: float) -> None:
            self.sleep(seconds)

        patch.setattr(casemill.drivers, "time", SimpleNamespace(sleep=self.sleep))
        patch.setattr(casemill.drivers, "anyio", SimpleNamespace(sleep=sleep))
        for module in (casemill.retry, casemill.following, casemill.work):
            patch.setattr(module, "monotonic", lambda: self.now)


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in these pieces; an exception among them is how it breaks off."""

    def __init__(self, *pieces: bytes | Exception | Callable[[], None]) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, bytes):
                yield piece
            else:
                piece()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


@dataclass
class Gateway:
    """``script`` answers each request: a response, JSON, or an exception that is raised in its place."""

    awaiting: bool
    clock: Clock
    asked: list[httpx.Request] = field(default_factory=list[httpx.Request])

    def do(self, call: Callable[[Any], Any], *script: Any, **options: Any) -> Any:
        """What a call of a client answers, iterators as lists; the script's last answer is for all that follow."""
        self.asked.clear()

        def answer(request: httpx.Request) -> httpx.Response:
            turn = script[min(len(self.asked), len(script) - 1)]
            self.asked.append(request)
            turn = turn(request) if callable(turn) else turn
            if isinstance(turn, Exception):
                raise turn
            return turn if isinstance(turn, httpx.Response) else httpx.Response(200, json=turn)

        options = {"url": URL, "key": KEY, "transport": httpx.MockTransport(answer)} | options
        return ask(call, awaiting=self.awaiting, **options)

    def header(self, name: str) -> list[str | None]:
        """A header of every request."""
        return [request.headers.get(name) for request in self.asked]

    def paths(self) -> list[str]:
        return [request.url.path for request in self.asked]


def problem(status: int, code: str = "some_code", headers: dict[str, str] | None = None, **members: Any) -> Any:
    """A fresh answer that refuses, each time it is asked for."""
    body = {"status": status, "code": code, "detail": "what to do", "request_id": "req_1"} | members
    return lambda _: httpx.Response(status, json=body, headers=headers)


def job(state: str = "queued", **members: Any) -> dict[str, Any]:
    """The JSON of a job."""
    view = {"id": "job_1", "type": "generate", "state": state, "priority": "normal"}
    return view | {"created_at": "2030-01-31T08:00:00Z", "unknown_here": 1} | members


def event(number: int, name: str, **data: Any) -> bytes:
    """A server-sent event as the gateway writes it."""
    return f"id: {number}-0\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


def stream(*pieces: bytes | Exception | Callable[[], None]) -> Callable[[httpx.Request], httpx.Response]:
    """A fresh answer with such a body."""
    return lambda _: httpx.Response(200, stream=Body(*pieces))
