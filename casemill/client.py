"""The two clients: :class:`Casemill` blocks, :class:`AsyncCasemill` awaits; what they can do is one and the same."""

from __future__ import annotations

import importlib.metadata
import os
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from casemill.calls import json_of, pieces
from casemill.documents import Documents
from casemill.drivers import Awaiting, Blocking
from casemill.following import Stream
from casemill.jobs import Jobs
from casemill.matters import Matters
from casemill.models import Event
from casemill.operations import D, Resource, iteration, operation
from casemill.requests import JobOptions
from casemill.retry import RetryPolicy
from casemill.runs import Runs
from casemill.steps import Emitting, Flow, path_of, request

DEFAULT_URL = "http://127.0.0.1:8700"


class Client(Resource[D]):
    """A connection to one gateway under one key. Its documents, jobs and runs are those that the key may see."""

    def __init__(self, driver: D, retry: RetryPolicy) -> None:
        super().__init__(driver, retry)
        self.documents = Documents(driver, retry)
        self.matters = Matters(driver, retry)
        self.jobs = Jobs(driver, retry)
        self.runs = Runs(driver, retry)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.driver.http.base_url)!r})"

    @operation
    def review(
        self,
        source: str | os.PathLike[str] | bytes,
        /,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Flow[dict[str, Any]]:
        """Upload a document, review it, and answer the review; options as :class:`casemill.JobOptions`.

        Raises ``Invalid`` where nobody can read the document, ``JobFailed``, and ``Unfinished`` after ``timeout``
        seconds of waiting: wait on by ``jobs.result`` of its ``work``. With an ``idempotency_key``, as of
        :meth:`casemill.jobs.Jobs.submit`, the same call is the same review, and waits on.
        """
        document = yield from Documents[D].upload.flow(self.documents, source, matter=options.get("matter"))
        asked: JobOptions = {**options, "document": document.id}
        job = yield from Jobs[D].submit.flow(self.jobs, "review", idempotency_key=idempotency_key, **asked)
        return (yield from Jobs[D].result.flow(self.jobs, job, timeout=timeout))

    @operation
    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        content: bytes | None = None,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[Any]:
        """The JSON that any route answers, ``None`` for none, for what has no method here: ``/docs`` lists them all.

        ``body`` is sent as JSON, ``content`` as it is. A POST or PATCH without an ``idempotency_key`` is sent again
        only where the first cannot have been done; ``/v1/jobs``, ``/v1/runs``, ``/v1/search``, ``/v1/compare``,
        ``/v1/duplicates`` and ``/v1/counts`` take one. A DELETE is sent again: an erasure is then answered as the first
        time, but what is removed otherwise, such as a webhook, can be ``NotFound``.
        """
        asked = request(
            method,
            path,
            params=params,
            body=body,
            content=content,
            content_type=content_type,
            idempotency_key=idempotency_key,
        )
        return (yield from json_of(asked, self.retry.begin()))

    @iteration
    def events(
        self, *, after: str | None = None, matter: str | None = None, run: str | None = None
    ) -> Emitting[Event, None]:
        """The states of all jobs, runs and batches that the key may see, as they come, without end.

        They come from now on, or from behind the event with the id ``after``; ``"0"`` asks for all that are kept, of a
        day at most. ``matter`` and ``run`` keep those of one. No state is missed when a connection breaks off. Each
        connection begins with ``ready``, or with ``gap`` where states were missed that are not kept any more: look at
        ``jobs.list`` then. ``idle`` comes when nothing else does, with an id to come back with. Raises ``Unreachable``
        for a gateway that stays away, and ``Unauthorized`` once the key has ended.
        """
        asked = request("GET", path_of("events"), params={"matter": matter, "run": run})
        stream = Stream(asked=asked, retry=self.retry, last=after)
        while True:
            yield from stream.again((yield from stream.connected()))

    @iteration
    def download(self, path: str, *, params: Mapping[str, Any] | None = None) -> Emitting[bytes, None]:
        """The body of a GET in pieces, as it comes, e.g. of ``/v1/runs/{id}/results`` as ``format=csv``."""
        yield from pieces(request("GET", path, params=params), self.retry.begin())


class Casemill(Client[Blocking]):
    """Talks to a gateway and blocks until it has answered. Safe for threads; a context manager that closes it.

    Args:
        url: of the gateway; else ``CASEMILL_URL``, else this machine's.
        key: an API key; else ``CASEMILL_KEY``. Raises ``ValueError`` where neither is given.
        timeout: seconds of silence after which a request is lost.
        retry: how long it goes on asking where that is safe.
        verify: ``False`` or an SSL context, for a gateway behind a certificate of the firm's own.
        transport: of httpx, for tests.

    No proxy is ever used, whatever the environment says: documents go to the gateway and nowhere else.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        options = _options(url, key, timeout, verify)
        super().__init__(Blocking(httpx.Client(**options, transport=transport)), retry)

    def close(self) -> None:
        """Close its connections."""
        self.driver.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncCasemill(Client[Awaiting]):
    """The same for asyncio: calls are awaited, lists and events are iterated by ``async for``.

    Arguments as :class:`Casemill`. A file that is uploaded by its path is read at once; where that would hold up the
    event loop, read it elsewhere and upload its bytes.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        options = _options(url, key, timeout, verify)
        super().__init__(Awaiting(httpx.AsyncClient(**options, transport=transport)), retry)

    async def aclose(self) -> None:
        """Close its connections."""
        await self.driver.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()


def _options(url: str | None, key: str | None, timeout: float, verify: ssl.SSLContext | bool) -> dict[str, Any]:
    """What both clients of httpx are made with."""
    url = url or os.environ.get("CASEMILL_URL") or DEFAULT_URL
    key = key or os.environ.get("CASEMILL_KEY")
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no URL of a gateway; write e.g. {DEFAULT_URL}")
    if not key:
        raise ValueError("no API key: give `key`, or set CASEMILL_KEY; `casemill keys create NAME` makes one")
    headers = {"Authorization": f"Bearer {key}", "User-Agent": f"casemill/{importlib.metadata.version('casemill')}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)  # each job that is followed holds one
    return {
        "base_url": url,
        "headers": headers,
        "timeout": timeout,
        "verify": verify,
        "limits": limits,
        "trust_env": False,
    }
