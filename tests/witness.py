"""Holds every answer that a test's gateway gives to the description of the API, whatever the test is about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from tests.described import Description, Operation

# A body that is larger is not read a second time.
MOST_BYTES = 2**20
# Tests without workers end jobs themselves, with results and problems of their own making.
MADE_UP = re.compile(r"(data/\d+/)?(result|problem): ")
NOTHING = re.compile("(?!)")


@dataclass
class Witness:
    """Looks at answers; ``seen`` are those that the description does not know, and why."""

    document: dict[str, Any]
    seen: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def __post_init__(self) -> None:
        self._description = Description(self.document)
        self._operations = [
            (re.compile(re.sub(r"\{\w+\}", "[^/]+", one.path)), one) for one in self._description.operations()
        ]

    def operation(self, method: str, path: str) -> Operation | None:
        fits = (one for pattern, one in self._operations if pattern.fullmatch(path) and one.method == method)
        return next(fits, None)

    def look(self, operation: Operation, answer: httpx.Response) -> None:
        told = f"{operation.method} {operation.path} → {answer.status_code} {answer.text[:200]}"
        self.seen += [(told, wrong) for wrong in self._description.misfits(operation, answer)]

    def hook(self, answer: httpx.Response) -> None:
        """For a client of httpx."""
        operation = self.operation(answer.request.method, answer.request.url.path)
        if operation and _is_stream(answer):
            answer.stream = _Watched(self, operation, answer)
        elif operation:
            answer.read()
            self.look(operation, answer)

    def check(self, but: re.Pattern[str] = NOTHING) -> None:
        """Fail where something was answered that the description does not know."""
        found = [f"{told}: {wrong}" for told, wrong in self.seen if not but.match(wrong)]
        assert not found, "not in the API's description:\n" + "\n".join(dict.fromkeys(found[:50]))


def _is_stream(answer: httpx.Response) -> bool:
    """Whether it is one of events, of which the whole ones are looked at."""
    return "event-stream" in answer.headers.get("content-type", "")


class _Watched(httpx.SyncByteStream):
    """The stream of an answer, looked at once the test has read what it wants of it."""

    def __init__(self, witness: Witness, operation: Operation, answer: httpx.Response) -> None:
        assert isinstance(answer.stream, httpx.SyncByteStream)
        self._witness, self._operation, self._answer, self._stream = witness, operation, answer, answer.stream
        self._read: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        for block in self._stream:
            self._read.append(block)
            yield block

    def close(self) -> None:
        self._stream.close()
        whole = httpx.Response(self._answer.status_code, headers=self._answer.headers, content=b"".join(self._read))
        self._witness.look(self._operation, whole)


class Witnessed:
    """ASGI middleware around an application without workers."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._witness = Witness(app.openapi())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked = scope["type"] == "http" and self._witness.operation(scope["method"], scope["path"])
        if not asked:
            await self._app(scope, receive, send)
            return
        answer: dict[str, Any] = {"content": b""}

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer["status_code"], answer["headers"] = message["status"], message["headers"]
            elif len(answer["content"]) < MOST_BYTES:
                answer["content"] += message.get("body", b"")
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:  # a stream ends when its reader leaves, in whatever way
            if answer.get("status_code", 499) != 499:
                whole = httpx.Response(**answer)
                if len(whole.content) < MOST_BYTES or _is_stream(whole):
                    self._witness.look(asked, whole)

    def check(self) -> None:
        """As :meth:`Witness.check`, but for what tests made up."""
        self._witness.check(MADE_UP)
