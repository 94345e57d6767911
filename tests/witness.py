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
# Tests end jobs as workers do, with results and problems of their own making.
MADE_UP = re.compile(r"(data/\d+/)?(result|problem): ")


@dataclass
class Witness:
    """ASGI middleware around the application; ``seen`` are answers that its description does not know."""

    app: FastAPI
    seen: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._description = Description(self.app.openapi())
        self._operations = [
            (re.compile(re.sub(r"\{\w+\}", "[^/]+", one.path)), one) for one in self._description.operations()
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        operation = self._operation(scope) if scope["type"] == "http" else None
        if operation is None:
            await self.app(scope, receive, send)
            return
        answer: dict[str, Any] = {"content": b""}

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer["status_code"], answer["headers"] = message["status"], message["headers"]
            elif len(answer["content"]) < MOST_BYTES:
                answer["content"] += message.get("body", b"")
            await send(message)

        await self.app(scope, receive, watched)
        if "status_code" in answer and answer["status_code"] != 499:
            self._look_at(operation, httpx.Response(**answer))

    def check(self) -> None:
        """Fail where something was answered that the description does not know."""
        assert not self.seen, "not in the API's description:\n" + "\n".join(dict.fromkeys(self.seen[:50]))

    def _operation(self, scope: Any) -> Operation | None:
        fits = (
            one for path, one in self._operations if path.fullmatch(scope["path"]) and one.method == scope["method"]
        )
        return next(fits, None)

    def _look_at(self, operation: Operation, answer: httpx.Response) -> None:
        streamed = "event-stream" in answer.headers.get("content-type", "")
        if not streamed and len(answer.content) < MOST_BYTES:
            self.seen += [
                f"{operation.method} {operation.path} → {answer.status_code} {answer.text[:200]}: {wrong}"
                for wrong in self._description.misfits(operation, answer)
                if not MADE_UP.match(wrong)
            ]
