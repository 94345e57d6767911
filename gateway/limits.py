"""What every request passes before a route sees it: a request id, and limits on its body's size and slowness."""

from __future__ import annotations

import asyncio
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problems import problem_response
from services.errors import PayloadTooLarge

JSON_BYTES = 8 * 2**20
# Boundaries and headers of a multipart upload come on top of the document.
MULTIPART_BYTES = 64 * 1024
# A body has so long to come, and longer for as much of it as a slow line brings.
BODY_SECONDS = 30.0
BODY_BYTES_A_SECOND = 16 * 1024
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
        received, whole, begun = 0, False, time.monotonic()

        async def counted() -> Message:
            nonlocal received, whole
            if whole:  # what comes now is that the client has gone
                return await receive()
            left = begun + BODY_SECONDS + received / BODY_BYTES_A_SECOND - time.monotonic()
            try:
                async with asyncio.timeout(left):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body came too slowly; send it again", {"Connection": "close"}) from None
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > limit:
                raise HTTPException(413, reason)
            return message

        await self._app(scope, counted, send_with_id)
