"""Ends an open stream of events soon after the key behind it was revoked, has expired or lost its secret."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import anyio
from starlette.concurrency import run_in_threadpool

from gateway.state import Gateway
from services.errors import CasemillError, Unauthorized, Unavailable
from services.principal import Principal

CHECK_SECONDS = 5.0


def interrupted(error: CasemillError) -> str:
    """The event that ends a stream before its time; the client comes back with ``Last-Event-ID``."""
    return f"event: interrupted\ndata: {json.dumps(error.problem())}\n\n"


async def while_allowed(
    gateway: Gateway,
    principal: Principal,
    stream: AsyncIterator[str],
    write: Callable[[CasemillError], str] = interrupted,
) -> AsyncGenerator[str]:
    """What the stream says while its key is good; then the reason, as ``write`` puts it, and the end."""
    following: asyncio.Future[str] | None = None
    checked = time.monotonic()
    try:
        while True:
            following = following or asyncio.ensure_future(_next(stream))
            left = checked + CHECK_SECONDS - time.monotonic()
            if left > 0:
                await asyncio.wait({following}, timeout=left)
            if time.monotonic() - checked >= CHECK_SECONDS:
                checked = time.monotonic()
                if not await _holds(gateway, principal):
                    yield write(
                        Unauthorized(
                            "the key of this stream was revoked, has expired or has another secret", code="key_ended"
                        )
                    )
                    return
            if following.done():
                done, following = following, None
                try:
                    text = done.result()
                except StopAsyncIteration:
                    return
                yield text
    finally:
        with anyio.CancelScope(shield=True):  # the stream may have jobs to cancel
            if following:
                following.cancel()
                await asyncio.wait({following})
                if not following.cancelled():
                    following.exception()  # it had ended already: looked at, or asyncio would tell of it as lost
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()


async def _next(stream: AsyncIterator[str]) -> str:
    return await anext(stream)


async def _holds(gateway: Gateway, principal: Principal) -> bool:
    try:
        return await run_in_threadpool(gateway.access.holds, principal)
    except Unavailable:  # the stream itself says so
        return True
