"""Tells each caller how much of its rates is left, in the headers of every answer that spent from them.

``RateLimit`` and ``RateLimit-Policy`` as in draft-ietf-httpapi-ratelimit-headers, one item a bucket, and
``x-ratelimit-*`` as OpenAI's clients read them, of the bucket that is emptiest.
"""

from __future__ import annotations

import math

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.principal import Rate

WINDOW_SECONDS = 60


class RateHeaders:
    """ASGI middleware; reads ``request.state.rates``, which the check of the key sets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""

        async def send_with_rates(message: Message) -> None:
            rates: list[Rate] = scope.get("state", {}).get("rates", [])
            if message["type"] == "http.response.start" and rates:
                MutableHeaders(scope=message).update(rate_headers(rates))
            await send(message)

        await self._app(scope, receive, send_with_rates)


def rate_headers(rates: list[Rate]) -> dict[str, str]:
    """The headers that tell of buckets."""
    headers = {
        "RateLimit-Policy": ", ".join(f'"{rate.name}";q={rate.limit};w={WINDOW_SECONDS}' for rate in rates),
        "RateLimit": ", ".join(f'"{rate.name}";r={rate.left};t={math.ceil(rate.reset)}' for rate in rates),
    }
    for what in ("requests", "tokens"):
        of_this = [rate for rate in rates if rate.name in (what, f"tenant-{what}")]
        if of_this:
            tightest = min(of_this, key=lambda rate: rate.left)
            headers[f"x-ratelimit-limit-{what}"] = str(tightest.limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(tightest.left)
            headers[f"x-ratelimit-reset-{what}"] = f"{math.ceil(tightest.reset)}s"
    return headers
