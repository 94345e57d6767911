"""Many jobs are waited for at once over real connections, more than httpx would open or as few as a pool has."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from casemill import AsyncCasemill, Casemill, Job
from tests.scripted_gateway import KEY, event, job

# Only a deadlock takes so long.
SECONDS = 20.0


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    block_on_close = False


@contextmanager
def gateway_of_streams(number: int) -> Generator[str]:
    """A gateway whose ``number`` jobs end once all are followed, and whose streams stay open behind the last event."""
    all_followed = threading.Barrier(number)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if not self.path.endswith("/events"):
                body = json.dumps(job("succeeded")).encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.end_headers()
            all_followed.wait(SECONDS)
            self.wfile.write(event(1, "succeeded"))
            self.rfile.read(1)  # until the client hangs up

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 (its name)

    with _Server(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def wait_blocking(url: str, number: int, limits: httpx.Limits | None) -> list[Job]:
    transport = httpx.HTTPTransport(limits=limits) if limits else None
    with Casemill(url, KEY, transport=transport) as client, ThreadPoolExecutor(number) as pool:
        return list(pool.map(lambda _: client.jobs.wait("job_1", timeout=SECONDS), range(number)))


def wait_awaiting(url: str, number: int, limits: httpx.Limits | None) -> list[Job]:
    async def within() -> list[Job]:
        transport = httpx.AsyncHTTPTransport(limits=limits) if limits else None
        async with AsyncCasemill(url, KEY, transport=transport) as client:
            return await asyncio.gather(*(client.jobs.wait("job_1", timeout=SECONDS) for _ in range(number)))

    return asyncio.run(within())


@pytest.mark.parametrize("wait", [wait_blocking, wait_awaiting])
@pytest.mark.parametrize(("number", "limits"), [(2, httpx.Limits(max_connections=2)), (101, None)])
def test_waiting_needs_one_connection_a_job(wait: Any, number: int, limits: httpx.Limits | None) -> None:
    with gateway_of_streams(number) as url:
        assert [found.state for found in wait(url, number, limits)] == ["succeeded"] * number
