"""How a gateway process serves: limits on connections, headers and time, so that nobody holds it up by being slow."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from services.settings import Settings

HEADER_SECONDS = 10.0
HEADER_BYTES = 64 * 1024
KEEP_ALIVE_SECONDS = 20
# Streams of events have no end: a restart does not wait for them, their clients come back.
SHUTDOWN_SECONDS = 5
# Files and connections beside those of clients: to Redis, blobs being read, modules.
OTHER_FILES = 256


class PatientProtocol(H11Protocol):
    """HTTP/1.1 on a connection that is closed when the head of a request takes too long, however it trickles in."""

    header_seconds = HEADER_SECONDS
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See :class:`asyncio.Protocol`."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_is_here()
        elif self._head is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._head_is_here()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.header_seconds, self.transport.close)

    def _head_is_here(self) -> None:
        if self._head:
            self._head.cancel()
            self._head = None


def serving_options(settings: Settings) -> dict[str, Any]:
    """What uvicorn is told."""
    return {
        "host": settings.host,
        "port": settings.port,
        "http": PatientProtocol,
        "ws": "none",
        "log_level": "info",
        "access_log": False,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": settings.trusted_proxies,
        "server_header": False,
        "limit_concurrency": settings.max_connections,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": SHUTDOWN_SECONDS,
        "h11_max_incomplete_event_size": HEADER_BYTES,
    }


def allow_files(count: int) -> None:
    """Let this process have so many files and connections open, as far as the system lets it."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
