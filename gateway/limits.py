"""What every request passes before a route sees it: a request id, and a limit on the size of its body."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problems import problem_response
from services.errors import PayloadTooLarge

JSON_BYTES = 8 * 2**20
# Boundaries and headers of a multipart upload come on top of the document.
MULTIPART_BYTES = 64 * 1024
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class RequestGuard:
    """ASGI middleware; sets ``request.state.request_id`` and answers it as ``X-Request-ID``."""

    def __init__(self, app: ASGIApp, *, upload_bytes: int, file_bytes: int) -> None:
        self._app = app
        self._uploads = {"/v1/documents": upload_bytes, "/v1/files": file_bytes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        upload = self._uploads.get(scope["path"])
        limit = JSON_BYTES if upload is None else upload + MULTIPART_BYTES
        reason = f"the body is larger than {limit} bytes; split it" + ("" if upload else " or upload it as a document")

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > limit:
            answer = problem_response(PayloadTooLarge(reason).problem(), Request(scope))
            await answer(scope, receive, send_with_id)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, reason)
            return message

        await self._app(scope, counted, send_with_id)
