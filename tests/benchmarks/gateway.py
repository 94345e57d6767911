"""The gateway of a running stack beside a bare FastAPI with Celery's `apply_async`: `make bench NAME=gateway`.

The stack of `casemill up` with the fake engine, whose Valkey syncs every write; the bare endpoint and a plain Celery
worker of no-op tasks share that Valkey. Everything, the load included, is on this machine, the sides in turn. The load
speaks HTTP over plain sockets, so that it costs little of what is measured. Submissions are measured while each side's
worker works, ours on embeddings whose results it stores, and once more while both workers are held.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import uvicorn
from fastapi import FastAPI, Request

from gateway.client_file import ClientFile
from gateway.serving import allow_files, serving_options
from gateway.stack.supervisor import Stack
from gateway.stack.valkey import free_port, reachable_settings
from services.broker import create_celery
from services.keys import Keys
from services.redis_client import connect
from services.settings import Settings
from tests.benchmarks.queue import plain_app, run_celery

RATE, RATE_SECONDS = 50, 8
CLIENTS, ROUND_SECONDS, ROUNDS = 32, 1.5, 5
CHATS, CHAT_ROUNDS = 100, 2
STREAMS = 500
REPORTED = ("p50_ms", "p99_ms", "submits_per_s", "ratio", "streams_lost", "intertoken_p99_ms")
JOB = {"type": "embed", "input": {"texts": ["a clause"]}}
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hello"}], "stream": True}


def main() -> int:
    """Print a table and one JSON line."""
    if len(sys.argv) > 1:
        return {"bare": serve_bare, "worker": work_bare}[sys.argv[1]]()
    allow_files(4 * STREAMS)
    with tempfile.TemporaryDirectory() as folder:
        values = {"data_dir": Path(folder), "port": 0, "flower_port": 0, "engine": "fake"}
        settings = Settings.model_validate(values)
        with Stack(settings, lambda _: None) as stack:
            url = stack.start().url
            known = ClientFile(Path(folder)).read()
            assert known
            with bare(reachable_settings(settings).redis_url) as bare_url:
                figures = asyncio.run(measure(Load(url, known.key), Load(bare_url, ""), reachable_settings(settings)))
    for name, value in figures.items():
        print(f"{name:28s} {value}")
    print(json.dumps({name: figures[name] for name in REPORTED}))
    return 0


class Load:
    """Speaks HTTP/1.1 to one server, a connection for each client."""

    def __init__(self, url: str, key: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.host, self.port, self.key = host, int(port), key

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of its own."""
        return await asyncio.open_connection(self.host, self.port)

    def request(self, path: str, body: Any = None) -> bytes:
        """A request as it goes over the wire."""
        data = b"" if body is None else json.dumps(body).encode()
        head = [
            f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
            f"Host: {self.host}",
            f"Authorization: Bearer {self.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
        ]
        return "\r\n".join([*head, "", ""]).encode() + data

    async def ask(
        self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes
    ) -> tuple[int, bytes]:
        """Status and body of an answer that has a length."""
        reader, writer = connection
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), await reader.readexactly(length)

    async def lines(self, request: bytes) -> AsyncIterator[str]:
        """The lines of a streamed answer, as they come; raises ``ConnectionError`` for any other."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if int(head.split()[1]) != 200:
                raise ConnectionError(head.decode())
            while size := int(await reader.readline(), 16):
                piece = await reader.readexactly(size + 2)
                for line in piece.decode().splitlines():
                    yield line
        finally:
            writer.close()


async def measure(ours: Load, plain: Load, settings: Settings) -> dict[str, float]:
    """All figures."""
    await rate(ours, 1.0)  # warm
    waits = sorted(await rate(ours, RATE_SECONDS))
    speeds: dict[str, list[float]] = {"ours": [], "bare": [], "ours, held": [], "bare, held": []}
    for _ in range(ROUNDS):
        for side, found in speeds.items():
            with held() if "held" in side else nullcontext():
                found.append(await (throughput(ours, "/v1/jobs") if "ours" in side else throughput(plain, "/jobs")))
            await drained(ours, settings)
    middle = {side: statistics.median(values) for side, values in speeds.items()}
    gaps: list[float] = []
    lost = 0
    for _ in range(CHAT_ROUNDS):
        for found in await asyncio.gather(*(chat(ours, number) for number in range(CHATS))):
            lost += found is None
            gaps += found or []
    missing = await open_streams(ours, settings)
    return {
        "p50_ms": round(statistics.median(waits) * 1000, 2),
        "p99_ms": round(percentile(waits, 0.99) * 1000, 2),
        "submits_per_s": round(middle["ours"]),
        "bare_submits_per_s": round(middle["bare"]),
        "ratio": _ratio(speeds["ours"], speeds["bare"]),
        "submits_per_s, held": round(middle["ours, held"]),
        "bare_submits_per_s, held": round(middle["bare, held"]),
        "ratio, held": _ratio(speeds["ours, held"], speeds["bare, held"]),
        "chats_lost": lost,
        "streams_with_events_lost": missing,
        "streams_lost": lost + missing,
        "intertoken_p50_ms": round(percentile(sorted(gaps), 0.5) * 1000, 2),
        "intertoken_p99_ms": round(percentile(sorted(gaps), 0.99) * 1000, 2),
    }


def _ratio(ours: list[float], bare: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 2)


@contextmanager
def held() -> Generator[None]:
    """Workers of both sides take nothing."""
    below = psutil.Process().children(recursive=True)
    workers = [one for one in below if {"workers", "worker"} & set(one.cmdline())]
    assert len(workers) >= 2
    for one in workers:
        one.suspend()
    try:
        yield
    finally:
        for one in workers:
            one.resume()


def percentile(values: Sequence[float], share: float) -> float:
    """Of values that ascend."""
    return values[min(len(values) - 1, int(len(values) * share))]


async def rate(load: Load, seconds: float) -> list[float]:
    """Seconds from each request to its durable 202, at a steady rate whatever the answers take."""
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    request = load.request("/v1/jobs", JOB)
    begun = time.perf_counter()

    async def one(number: int) -> float:
        await asyncio.sleep(max(0.0, begun + number / RATE - time.perf_counter()))
        due = time.perf_counter()
        connection = idle.pop() if idle else await load.connect()
        status, body = await load.ask(connection, request)
        took = time.perf_counter() - due
        assert status == 202, body
        idle.append(connection)
        return took

    took = await asyncio.gather(*(one(number) for number in range(int(RATE * seconds))))
    for _, writer in idle:
        writer.close()
    return took


async def throughput(load: Load, path: str) -> float:
    """Submissions a second by clients that each send the next when the last is accepted."""
    request, until = load.request(path, JOB), time.perf_counter() + ROUND_SECONDS

    async def client() -> int:
        connection, done = await load.connect(), 0
        while time.perf_counter() < until:
            status, body = await load.ask(connection, request)
            assert status == 202, body
            done += 1
        connection[1].close()
        return done

    begun = time.perf_counter()
    done = sum(await asyncio.gather(*(client() for _ in range(CLIENTS))))
    return done / (time.perf_counter() - begun)


async def drained(load: Load, settings: Settings) -> None:
    """Until both workers have done what waits, so that they take nothing of what comes next."""
    raw: Any = connect(settings)

    async def empty() -> bool:
        if any(raw.type(name) == "list" and "plain" in name for name in raw.scan_iter("bare:*")):
            return False
        connection = await load.connect()
        _, body = await load.ask(connection, load.request("/v1/lanes"))
        connection[1].close()
        return not any(lane["waiting"] or lane["busy"] for lane in json.loads(body)["data"])

    await until(empty)


async def chat(load: Load, number: int) -> list[float] | None:
    """Seconds between the pieces of one streamed chat, ``None`` if it did not come to its end."""
    messages = [{"role": "user", "content": f"hello {number}"}]
    gaps: list[float] = []
    last = 0.0
    try:
        async for line in load.lines(load.request("/v1/chat/completions", CHAT | {"messages": messages})):
            if line == "data: [DONE]":
                return gaps
            if line.startswith("data: {") and (found := json.loads(line.removeprefix("data: "))).get("choices"):
                if not found["choices"][0]["delta"].get("content"):
                    continue
                now = time.perf_counter()
                gaps += [now - last] if last else []
                last = now
    except (OSError, EOFError):
        pass
    return None


async def open_streams(load: Load, settings: Settings) -> int:
    """How many of 500 streams that are open at once lack an event that Redis has, or do not come to their end."""
    due = datetime.now(UTC) + timedelta(seconds=20)
    client: Any = connect(settings)
    connection = await load.connect()
    ids: list[str] = []
    for number in range(STREAMS):
        body = {"type": "generate", "input": {"prompt": str(number)}, "not_before": due.isoformat()}
        ids.append(json.loads((await load.ask(connection, load.request("/v1/jobs", body)))[1])["id"])
    opened = 0

    async def follow(job: str) -> list[str]:
        nonlocal opened
        seen: list[str] = []
        async for line in load.lines(load.request(f"/v1/jobs/{job}/events")):
            opened += not seen
            if line.startswith("id: "):
                seen.append(line.removeprefix("id: "))
        return seen

    followers = [asyncio.create_task(follow(job)) for job in ids]
    await until(lambda: _true(opened == STREAMS))
    late = datetime.now(UTC) > due
    seen = await asyncio.gather(*followers, return_exceptions=True)
    keys = Keys(settings.prefix)
    kept = [[row[0] for row in client.xrange(keys("events", tenant="default", id=job))] for job in ids]
    if late:
        print("the streams were not open in time: this machine is too slow for the figure")
    return sum(one != events for one, events in zip(seen, kept, strict=True))


async def _true(value: bool) -> bool:
    return value


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Until the condition holds; a minute at most."""
    end = time.monotonic() + 60
    while not await condition():
        if time.monotonic() > end:
            raise SystemExit("the stack does not get on")
        await asyncio.sleep(0.1)


@contextmanager
def bare(redis_url: str) -> Generator[str]:
    """The bare endpoint and its worker, in processes of their own; answers where it listens."""
    port = free_port()
    env = os.environ | {"BENCH_URL": redis_url, "BENCH_PREFIX": "bare:", "BENCH_PORT": str(port)}
    command = [sys.executable, "-m", "tests.benchmarks.gateway"]
    quiet: dict[str, Any] = {"env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with (
        subprocess.Popen([*command, "bare"], **quiet) as server,
        subprocess.Popen([*command, "worker"], **quiet) as worker,
    ):
        try:
            asyncio.run(until(lambda: _answers(port)))
            yield f"http://127.0.0.1:{port}"
        finally:
            for process in (server, worker):
                process.terminate()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def serve_bare() -> int:
    """What one writes without a queue of one's own: take the JSON, hand it to Celery, answer its id."""
    settings = Settings.model_validate({"REDIS_URL": os.environ["BENCH_URL"], "prefix": os.environ["BENCH_PREFIX"]})
    settings = settings.model_copy(update={"port": int(os.environ["BENCH_PORT"])})
    celery, app = create_celery(settings), FastAPI()
    task = celery.task(name="noop")(_noop)

    @app.post("/jobs", status_code=202)
    def submit(body: dict[str, Any], request: Request) -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        del request
        return {"id": str(task.apply_async(args=[body], queue="plain", priority=3).id)}

    options: dict[str, Any] = serving_options(settings) | {"log_level": "error"}
    uvicorn.run(app, **options)
    return 0


def work_bare() -> int:
    """A plain Celery worker of no-op tasks."""
    app = plain_app(os.environ["BENCH_URL"], os.environ["BENCH_PREFIX"])
    app.task(_noop, name="noop")
    return run_celery(app, ["plain"])


def _noop(body: Any) -> None:
    del body


if __name__ == "__main__":
    sys.exit(main())
