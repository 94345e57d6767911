"""Holds every answer that a test's gateway gives to the description of the API, whatever the test is about."""

from __future__ import annotations

import re
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
        if operation and "event-stream" not in answer.headers.get("content-type", ""):
            answer.read()
            self.look(operation, answer)

    def check(self, but: re.Pattern[str] = NOTHING) -> None:
        """Fail where something was answered that the description does not know."""
        found = [f"{told}: {wrong}" for told, wrong in self.seen if not but.match(wrong)]
        assert not found, "not in the API's description:\n" + "\n".join(dict.fromkeys(found[:50]))


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

        await self._app(scope, receive, watched)
        if answer.get("status_code", 499) != 499 and len(answer["content"]) < MOST_BYTES:
            whole = httpx.Response(**answer)
            if "event-stream" not in whole.headers.get("content-type", ""):
                self._witness.look(asked, whole)

    def check(self) -> None:
        """As :meth:`Witness.check`, but for what tests made up."""
        self._witness.check(MADE_UP)
