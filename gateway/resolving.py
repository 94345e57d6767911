"""Asks where an endpoint's host is: a resolver cannot be interrupted, so by threads of its own, and not for long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from gateway.openapi.raises import raises
from services.errors import InvalidRequest
from services.settings import Network
from services.webhook_addresses import checked_url, host_name, resolve

SECONDS = 5.0
THREADS: Final = 4
_POOL: Final = ThreadPoolExecutor(THREADS, "resolver")


@raises("webhook_url_invalid", "webhook_unresolved", "webhook_address_refused")
async def check_endpoint(url: str, allowed: Sequence[Network]) -> None:
    """Raise ``InvalidRequest`` where nothing may be sent to a URL, or its host is not found within ``SECONDS``."""
    target = checked_url(url)
    try:
        async with asyncio.timeout(SECONDS):
            await asyncio.get_running_loop().run_in_executor(_POOL, resolve, target, allowed)
    except TimeoutError:
        raise InvalidRequest(
            f"the host {host_name(target)!r} does not resolve within {SECONDS:g} s; check the name and the resolver",
            code="webhook_unresolved",
        ) from None
