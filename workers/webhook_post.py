"""One POST to an endpoint that nobody trusts: to a checked address, in bounded time, following and reading nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from services.errors import InvalidRequest, Transient
from services.settings import Network
from services.webhook_addresses import checked_url, host_name, resolve

CONNECT_SECONDS = 5.0
# From the first connection to the last byte of the answer's headers, however slowly they come.
EXCHANGE_SECONDS = 15.0
# A resolver that hangs gives up by itself, in its own time.
RESOLVE_SECONDS = 5.0
TICK_SECONDS = 0.5


@functools.cache
def _trusted() -> ssl.SSLContext:
    """What this machine trusts, a firm's own authority among it; reading that takes some milliseconds."""
    return ssl.create_default_context()


def post(
    url: str, body: bytes, headers: Mapping[str, str], allowed: Sequence[Network], tick: Callable[[], None]
) -> tuple[int, float | None]:
    """Send ``body``; answers the HTTP status and the seconds of ``Retry-After``, if any.

    Calls ``tick`` while it waits. Raises ``Transient`` ``webhook_unresolved``, ``webhook_address_refused``,
    ``webhook_timeout``, ``webhook_tls`` or ``webhook_unreachable``. The answer's body is never read.
    """
    until = time.monotonic() + RESOLVE_SECONDS + EXCHANGE_SECONDS
    outcome: concurrent.futures.Future[tuple[int, float | None]] = concurrent.futures.Future()

    def work() -> None:
        try:
            target = checked_url(url)
            addresses = resolve(target, allowed)
            if time.monotonic() > until - EXCHANGE_SECONDS:  # nobody waits for the exchange any more
                raise _timeout()
            outcome.set_result(asyncio.run(_exchange(target, addresses, body, headers)))
        except BaseException as error:  # it is raised in the thread that waits
            outcome.set_exception(error)

    # A thread of its own: a resolver cannot be interrupted, and must not hold up the slot.
    threading.Thread(target=work, name="webhook", daemon=True).start()
    while not outcome.done():
        concurrent.futures.wait([outcome], timeout=TICK_SECONDS)
        tick()
        if time.monotonic() > until:
            raise _timeout()
    try:
        return outcome.result()
    except InvalidRequest as error:  # the name may lead elsewhere later
        raise Transient(error.detail, code=error.code) from None


async def _exchange(
    target: httpx.URL, addresses: Sequence[str], body: bytes, headers: Mapping[str, str]
) -> tuple[int, float | None]:
    """Try the addresses in turn until one takes the connection."""
    try:
        async with asyncio.timeout(EXCHANGE_SECONDS):
            timeout = httpx.Timeout(EXCHANGE_SECONDS, connect=CONNECT_SECONDS)
            async with httpx.AsyncClient(verify=_trusted(), trust_env=False, timeout=timeout) as client:
                for address in addresses:
                    try:
                        return await _send(client, target, address, body, headers)
                    except (httpx.ConnectError, httpx.ConnectTimeout):
                        if address == addresses[-1]:
                            raise
    except (TimeoutError, httpx.TimeoutException):
        raise _timeout() from None
    except (httpx.HTTPError, OSError) as error:
        reason = _tls_reason(error)
        if reason:
            raise Transient(f"TLS with {host_name(target)} failed: {reason}", code="webhook_tls") from None
        raise Transient(
            f"{host_name(target)} does not answer as HTTP ({type(error).__name__})", code="webhook_unreachable"
        ) from None
    raise AssertionError("a name that resolves has an address")


async def _send(
    client: httpx.AsyncClient, target: httpx.URL, address: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, float | None]:
    request = client.build_request(
        "POST",
        target.copy_with(host=address),
        content=body,
        headers={
            **headers,
            "Host": target.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "User-Agent": "Casemill",
            "Connection": "close",
        },
        extensions={"sni_hostname": host_name(target)},
    )
    answer = await client.send(request, stream=True, follow_redirects=False)
    await answer.aclose()  # the status is all that counts; a body may be endless
    return answer.status_code, _seconds(answer.headers.get("retry-after", ""))


def _seconds(retry_after: str) -> float | None:
    """The wait that a receiver asks for, in seconds or as a date; ``None`` where it asks for none."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError):
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _tls_reason(error: BaseException) -> str | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        if isinstance(cause, ssl.SSLError):
            return cause.reason or type(cause).__name__
        cause = cause.__cause__ or cause.__context__
    return None


def _timeout() -> Transient:
    return Transient("the receiver did not answer in time", code="webhook_timeout")
