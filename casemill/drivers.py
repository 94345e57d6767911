"""Carries flows out with httpx, blocking or awaiting: all that the two clients do not share."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing
from typing import Any, TypeVar

import httpx

from casemill.steps import Answer, Emit, Emitting, Flow, Lost, Open, Pause, Read, Request

T = TypeVar("T")
E = TypeVar("E")

# Other failures of httpx come from what it was given, and would come again.
_LOST = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Blocking:
    """Carries flows out in the caller's thread. Safe for threads."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def run(self, flow: Flow[T]) -> T:
        """Carry a flow out; answers its value."""
        return deque(self.iterate(_valued(flow)), maxlen=1).pop()

    def iterate(self, flow: Emitting[E, Any]) -> Generator[E]:
        """Carry a flow out as its items are asked for."""
        with closing(_Connection(self.http)) as connection:
            outcome: Any = None
            while True:
                try:
                    step = flow.send(outcome)
                except StopIteration:
                    return
                if isinstance(step, Emit):
                    yield step.item
                    outcome = None
                else:
                    outcome = connection.perform(step)


class _Connection:
    """What one flow has open: one answer at most, so that flows of a bounded pool never wait for each other."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._answer: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def perform(self, step: Request | Open | Read | Pause) -> Any:
        try:
            match step:
                case Pause():
                    return time.sleep(step.seconds)
                case Request():
                    self.close()
                    return _whole(self._http.send(_built(self._http, step)))
                case Open():
                    self.close()
                    self._answer = answer = self._http.send(_built(self._http, step.request), stream=True)
                    if not answer.is_success:
                        answer.read()
                        return _whole(answer)
                    self._pieces = answer.iter_bytes()
                    return Answer(answer.status_code, answer.headers)
                case Read():
                    return next(self._pieces, None)
        except _LOST as error:
            return _lost(self._http, error)

    def close(self) -> None:
        if self._answer:
            self._answer.close()


class Awaiting:
    """Carries flows out without blocking the event loop."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def run(self, flow: Flow[T]) -> T:
        """As :meth:`Blocking.run`."""
        value: Any = None
        async with aclosing(self.iterate(_valued(flow))) as items:
            async for value in items:  # noqa: B007 (the last counts)
                pass
        return value

    async def iterate(self, flow: Emitting[E, Any]) -> AsyncGenerator[E]:
        """As :meth:`Blocking.iterate`."""
        async with aclosing(_AsyncConnection(self.http)) as connection:
            outcome: Any = None
            while True:
                try:
                    step = flow.send(outcome)
                except StopIteration:
                    return
                if isinstance(step, Emit):
                    yield step.item
                    outcome = None
                else:
                    outcome = await connection.perform(step)


class _AsyncConnection:
    """The same, awaiting."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._answer: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def perform(self, step: Request | Open | Read | Pause) -> Any:
        try:
            match step:
                case Pause():
                    return await asyncio.sleep(step.seconds)
                case Request():
                    await self.aclose()
                    return _whole(await self._http.send(_built(self._http, step)))
                case Open():
                    await self.aclose()
                    self._answer = answer = await self._http.send(_built(self._http, step.request), stream=True)
                    if not answer.is_success:
                        await answer.aread()
                        return _whole(answer)
                    self._pieces = answer.aiter_bytes()
                    return Answer(answer.status_code, answer.headers)
                case Read():
                    return await anext(self._pieces, None) if self._pieces else None
        except _LOST as error:
            return _lost(self._http, error)

    async def aclose(self) -> None:
        if self._answer:
            await self._answer.aclose()


def _valued(flow: Flow[T]) -> Flow[None]:
    """The flow, that emits its value last."""
    yield Emit((yield from flow))


def _built(http: httpx.Client | httpx.AsyncClient, step: Request) -> httpx.Request:
    return http.build_request(
        step.method,
        httpx.URL(step.path).copy_merge_params(step.params),  # given apart they would replace the path's own
        headers=[
            (name.encode(), value.encode()) for name, value in step.headers.items()
        ],  # httpx would take ASCII only
        content=step.content,
        timeout=httpx.USE_CLIENT_DEFAULT if step.timeout is None else step.timeout,
    )


def _whole(answer: httpx.Response) -> Answer:
    return Answer(answer.status_code, answer.headers, answer.content)


def _lost(http: httpx.Client | httpx.AsyncClient, error: Exception) -> Lost:
    url, why = str(http.base_url).rstrip("/"), type(error).__name__
    if isinstance(error, _NEVER_SENT):
        return Lost(f"no gateway answers at {url} ({why})", sent=False)
    return Lost(f"the gateway at {url} broke off ({why})", sent=True)
