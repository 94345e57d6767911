"""OpenAI's routes through the same queue: ``/v1/chat/completions``, ``/v1/embeddings`` and ``/v1/models``."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from gateway.following import KEEPALIVE_SECONDS, result_of, wait_for_end
from gateway.openai_schemas import ChatRequest, EmbeddingsRequest, openai_calls, openai_logprobs
from gateway.schemas import JobRequest
from gateway.state import Gateway, Reader, Shared, Submitter
from gateway.submissions import build_submission
from services.access import Principal
from services.errors import CasemillError, InvalidRequest, NotFound, Unavailable
from services.events import follow
from services.jobs import Priority

router = APIRouter(prefix="/v1", tags=["openai"])

Urgency = Annotated[str | None, Header(alias="X-Casemill-Priority")]


@router.post("/chat/completions", response_model=None)
async def chat(
    body: ChatRequest, request: Request, gateway: Shared, principal: Submitter, priority: Urgency = None
) -> dict[str, Any] | StreamingResponse:
    """A chat completion, whole or streamed; waits in the queue like any job."""
    wanted = JobRequest(
        type="generate",
        model=body.model,
        priority=_priority(principal, priority),
        input=body.job_input(),
        metadata=body.metadata or {},
    )
    job = await _submit(gateway, principal, wanted, request)
    head = {"id": f"chatcmpl-{job.removeprefix('job_')}", "created": int(time.time()), "model": body.model}
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        stream = _chat_stream(gateway, principal.tenant, job, head, usage)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    result = await _result(gateway, principal.tenant, job, request)
    calls = openai_calls(result)
    content = {"content": None, "tool_calls": calls} if calls else {"content": result["text"]}
    message = {"role": "assistant", "refusal": None} | content
    choice = {
        "index": 0,
        "message": message,
        "logprobs": openai_logprobs(result),
        "finish_reason": result["finish_reason"],
    }
    return head | {"object": "chat.completion", "choices": [choice], "usage": _usage(result)}


@router.post("/embeddings")
async def embeddings(
    body: EmbeddingsRequest, request: Request, gateway: Shared, principal: Submitter, priority: Urgency = None
) -> dict[str, Any]:
    """Embeddings of one or many texts, L2-normalised."""
    wanted = JobRequest(type="embed", model=body.model, priority=_priority(principal, priority), input=body.job_input())
    job = await _submit(gateway, principal, wanted, request)
    result = await _result(gateway, principal.tenant, job, request)
    data = [
        {"object": "embedding", "index": index, "embedding": body.encode(vector)}
        for index, vector in enumerate(result["vectors"])
    ]
    tokens = sum(result["tokens"])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body.model, "usage": usage}


@router.get("/models")
def list_models(gateway: Shared, _: Reader) -> dict[str, Any]:
    """Models that are installed here or that a live worker can serve."""
    return {"object": "list", "data": list(_all_models(gateway).values())}


@router.get("/models/{model_id}")
def get_model(model_id: str, gateway: Shared, _: Reader) -> dict[str, Any]:
    """One model."""
    models = _all_models(gateway)
    if model_id not in models:
        raise NotFound(f"unknown model {model_id!r}", code="model_unknown")
    return models[model_id]


def _all_models(gateway: Gateway) -> dict[str, dict[str, Any]]:
    base: dict[str, Any] = {"object": "model", "created": 0, "owned_by": "casemill"}
    models: dict[str, dict[str, Any]] = {}
    for model in gateway.catalog.list():
        models[model.name] = base | {
            "id": model.name,
            "kind": model.kind,
            "sha256": model.sha256,
            "context_tokens": model.context_tokens,
            "licence": model.licence,
            "loaded": False,
        }
    for model in gateway.fleet.models():
        known = models.get(model.name, base | {"id": model.name, "licence": None})
        live = {"kind": model.kind, "sha256": model.sha256, "context_tokens": model.context_tokens}
        models[model.name] = known | live | {"loaded": model.loaded}
    return models


async def _submit(gateway: Gateway, principal: Principal, wanted: JobRequest, request: Request) -> str:
    def submit() -> str:
        try:
            submission = build_submission(gateway, principal, wanted)
        except InvalidRequest as error:
            if error.code == "model_unknown":  # 404 is what OpenAI's clients expect
                raise NotFound(error.detail, code=error.code) from None
            raise
        return gateway.lifecycle.submit(replace(submission, request_id=request.state.request_id))[0].id

    return await run_in_threadpool(submit)


async def _result(gateway: Gateway, tenant: str, job: str, request: Request) -> dict[str, Any]:
    """The job's result; a client that goes away meanwhile cancels it."""
    while True:
        record = await wait_for_end(gateway, tenant, job, KEEPALIVE_SECONDS / 10)
        if record is not None:
            return await run_in_threadpool(result_of, gateway, record)
        if await request.is_disconnected():
            await run_in_threadpool(gateway.lifecycle.cancel, tenant, job)
            raise CasemillError("the client went away; its job was cancelled", code="client_gone", status=499)


async def _chat_stream(
    gateway: Gateway, tenant: str, job: str, head: dict[str, Any], usage: bool
) -> AsyncIterator[str]:
    """The chunks of a streamed chat. What was sent is always a beginning of the job's text; else the stream says so."""
    head = head | {"object": "chat.completion.chunk"}
    sent, ended = "", False

    def chunk(delta: dict[str, Any], finish: str | None = None, logprobs: dict[str, Any] | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return f"data: {json.dumps(head | {'choices': [choice]})}\n\n"

    try:
        yield chunk({"role": "assistant", "content": ""})
        async for event in follow(gateway.events, gateway.lifecycle.keys, tenant, job, idle_seconds=KEEPALIVE_SECONDS):
            if event is None:
                yield ": waiting\n\n"
            elif event.event == "running" and sent:
                raise Unavailable("the worker was lost and the text begins anew; ask again", code="stream_restarted")
            elif event.event == "token":
                sent += event.data["text"]
                yield chunk({"content": event.data["text"]})
        ended = True
        record = await run_in_threadpool(gateway.lifecycle.get, tenant, job)
        result = await run_in_threadpool(result_of, gateway, record)
        if not result["text"].startswith(sent):
            raise Unavailable("the stream lost a piece of the text; ask again", code="stream_broken")
        if tail := result["text"].removeprefix(sent):
            yield chunk({"content": tail})
        if calls := openai_calls(result):
            yield chunk({"tool_calls": [{"index": index} | call for index, call in enumerate(calls)]})
        yield chunk({}, result["finish_reason"], openai_logprobs(result))
        if usage:
            yield f"data: {json.dumps(head | {'choices': [], 'usage': _usage(result)})}\n\n"
        yield "data: [DONE]\n\n"
    except CasemillError as error:
        yield f"data: {json.dumps({'error': _openai_error(error)})}\n\n"
    finally:
        if not ended:  # the client went away: nobody reads the rest
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(_cancel_quietly, gateway, tenant, job)


def _priority(principal: Principal, asked: str | None) -> str:
    """What the client asks for; by default high, as somebody waits, or the most urgent that the key allows."""
    return asked or max(Priority.HIGH, principal.ceiling, key=lambda priority: priority.rank)


def _cancel_quietly(gateway: Gateway, tenant: str, job: str) -> None:
    with suppress(Unavailable, NotFound):  # then it ends by itself
        gateway.lifecycle.cancel(tenant, job)


def _usage(result: dict[str, Any]) -> dict[str, int]:
    tokens_in, tokens_out = result["tokens_in"], result["tokens_out"]
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


def _openai_error(error: CasemillError) -> dict[str, Any]:
    return {"message": error.detail, "type": "casemill_error", "code": error.code, "param": None}
