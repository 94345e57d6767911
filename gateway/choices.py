"""Several generate jobs as one answer: the choices of a completion, whole or as one stream of their pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

import anyio
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from gateway.following import KEEPALIVE_SECONDS, follow_job, result_of, wait_for_end
from gateway.openapi.job_codes import MODELS
from gateway.openapi.raises import raises
from gateway.schemas import JobRequest
from gateway.state import Gateway
from gateway.submissions import build_submission
from services.errors import CasemillError, InvalidRequest, NotFound, Unavailable
from services.principal import Principal


@dataclass(frozen=True, slots=True)
class Piece:
    """What the choice number ``index`` gets: more text, at its end the ``result`` of its job, neither as it begins."""

    index: int
    text: str = ""
    result: dict[str, Any] | None = None


@raises(
    ("model_unknown", 404),
    "catalog_damaged",
    "priority_unknown",
    "priority_forbidden",
    "matter_forbidden",
    "input_invalid",
    "text_invalid",
    "backlog_full",
    "storage_unavailable",
)
async def submit(gateway: Gateway, principal: Principal, wanted: Sequence[JobRequest], request: Request) -> list[str]:
    """The ids of the jobs, all accepted or none: raises why one was not."""

    def submit_all() -> list[str]:
        jobs: list[str] = []
        try:
            for one in wanted:
                submission = replace(build_submission(gateway, principal, one), request_id=request.state.request_id)
                jobs.append(gateway.lifecycle.submit(submission)[0].id)
        except CasemillError as error:
            _cancel(gateway, principal.tenant, jobs)
            if isinstance(error, InvalidRequest) and error.code == "model_unknown":  # 404 is what clients expect
                raise NotFound(error.detail, code=error.code) from None
            raise
        return jobs

    return await run_in_threadpool(submit_all)


@raises(wait_for_end, result_of, *MODELS)
async def results(gateway: Gateway, tenant: str, jobs: Sequence[str], request: Request) -> list[dict[str, Any]]:
    """The jobs' results; a client that goes away meanwhile cancels them, and so does one of them that fails."""
    found: list[dict[str, Any]] = []
    try:
        for job in jobs:
            while (record := await wait_for_end(gateway, tenant, job, KEEPALIVE_SECONDS / 10)) is None:
                if await request.is_disconnected():
                    raise CasemillError("the client went away; its job was cancelled", code="client_gone", status=499)
            found.append(await run_in_threadpool(result_of, gateway, record))
    finally:
        if len(found) < len(jobs):
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(_cancel, gateway, tenant, jobs[len(found) :])
    return found


async def pieces(gateway: Gateway, tenant: str, jobs: Sequence[str]) -> AsyncGenerator[Piece | None]:
    """What the jobs say, as it comes, until all have ended; ``None`` where nothing has come for a while.

    The text of a choice is always a beginning of its result's; raises ``CasemillError`` where it cannot be. Whoever
    leaves before the end cancels the jobs that have not ended.
    """
    come: asyncio.Queue[Piece | Exception | None] = asyncio.Queue()

    async def read(index: int, job: str) -> None:
        try:
            async for piece in _pieces(gateway, tenant, index, job):
                come.put_nowait(piece)
        except Exception as error:  # raised again below, where the stream is written
            come.put_nowait(error)

    readers = [asyncio.create_task(read(index, job)) for index, job in enumerate(jobs)]
    left = set(range(len(jobs)))
    try:
        for index in range(len(jobs)):
            yield Piece(index)
        while left:
            piece = await come.get()
            if isinstance(piece, Exception):
                raise piece
            if piece is not None and piece.result is not None:
                left.remove(piece.index)
            yield piece
    finally:
        for reader in readers:
            reader.cancel()
        if left:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(_cancel, gateway, tenant, [jobs[index] for index in sorted(left)])


async def _pieces(gateway: Gateway, tenant: str, index: int, job: str) -> AsyncIterator[Piece | None]:
    sent = ""
    events = follow_job(gateway, tenant, job, idle_seconds=KEEPALIVE_SECONDS)
    async with aclosing(events):
        async for event in events:
            if event is None:
                yield None
            elif event.event == "running" and sent:
                raise Unavailable("the worker was lost and the text begins anew; ask again", code="stream_restarted")
            elif event.event == "token":
                sent += event.data["text"]
                yield Piece(index, event.data["text"])
    record = await run_in_threadpool(gateway.lifecycle.get, tenant, job)
    result = await run_in_threadpool(result_of, gateway, record)
    if not result["text"].startswith(sent):
        raise Unavailable("the stream lost a piece of the text; ask again", code="stream_broken")
    if tail := result["text"].removeprefix(sent):
        yield Piece(index, tail)
    yield Piece(index, result=result)


def _cancel(gateway: Gateway, tenant: str, jobs: Sequence[str]) -> None:
    for job in jobs:
        with suppress(Unavailable, NotFound):  # then it ends by itself
            gateway.lifecycle.cancel(tenant, job)
