"""OpenAI's ``/v1/chat/completions`` and ``/v1/completions``: each choice is a job that waits in the queue like any."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from gateway import choices
from gateway.keyed_route import KeyedRoute
from gateway.openai_schemas import ChatChunk, ChatCompletion, TextCompletion
from gateway.openapi.answers import chunks
from gateway.openapi.job_codes import GENERATING
from gateway.openapi.raises import raises
from gateway.request_headers import Urgency
from gateway.schemas import JobRequest
from gateway.state import Gateway, MatterSubmitter, Shared
from gateway.waiting import Waits
from gateway.while_allowed import while_allowed
from services import openai_answers
from services.errors import CasemillError
from services.jobs import Priority
from services.openai_answers import TIERS, Chat, Completion, Form, completion, usage
from services.openai_requests import ChatRequest, CompletionRequest, Generation
from services.principal import Principal

router = APIRouter(prefix="/v1", tags=["openai"], route_class=KeyedRoute)

_STREAMED = "The answer; with `stream` in pieces, as server-sent events without names, the last one `[DONE]`"


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    responses={200: chunks(ChatChunk, _STREAMED)},
    dependencies=[Waits],
)
@raises(choices.submit, choices.results, *GENERATING)
async def create_chat_completion(
    body: ChatRequest, request: Request, gateway: Shared, principal: MatterSubmitter, priority: Urgency = None
) -> Response:
    """A chat completion, whole or streamed; waits in the queue like any job."""
    return await _answer(Chat(), body, body.job_inputs(), request, gateway, principal, priority)


@router.post(
    "/completions",
    response_model=TextCompletion,
    responses={200: chunks(TextCompletion, _STREAMED)},
    dependencies=[Waits],
)
@raises(choices.submit, choices.results, *GENERATING)
async def create_completion(
    body: CompletionRequest, request: Request, gateway: Shared, principal: MatterSubmitter, priority: Urgency = None
) -> Response:
    """How the model goes on from each prompt as it stands, whole or streamed."""
    return await _answer(Completion(), body, body.job_inputs(), request, gateway, principal, priority)


async def _answer(
    form: Form,
    body: Generation,
    inputs: Sequence[dict[str, Any]],
    request: Request,
    gateway: Gateway,
    principal: Principal,
    priority: str | None,
) -> Response:
    urgency = urgency_of(principal, priority, body.service_tier)
    wanted = [
        JobRequest(type="generate", model=body.model, priority=urgency, input=given, metadata=body.metadata or {})
        for given in inputs
    ]
    jobs = await choices.submit(gateway, principal, wanted, request)
    head = openai_answers.head(form, body, jobs[0], urgency)
    if body.stream:
        counted = bool(body.stream_options and body.stream_options.include_usage)
        chunks = _stream(form, gateway, principal.tenant, jobs, head, body.n, counted)
        stream = while_allowed(gateway, principal, chunks, _failed)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    found = await choices.results(gateway, principal.tenant, jobs, request)
    return JSONResponse(completion(form, head, found, body.n))


async def _stream(
    form: Form, gateway: Gateway, tenant: str, jobs: list[str], head: dict[str, Any], n: int, counted: bool
) -> AsyncIterator[str]:
    """The chunks of a streamed answer; an error ends it as one that the clients know."""
    head = head | {"object": form.part}
    found: dict[int, dict[str, Any]] = {}

    try:
        async with aclosing(choices.pieces(gateway, tenant, jobs)) as pieces:
            async for piece in pieces:
                if piece is None:
                    yield ": waiting\n\n"
                    continue
                if piece.result is not None:
                    found[piece.index] = piece.result
                    parts = form.end(piece.index, piece.result)
                else:
                    parts = [form.text(piece.index, piece.text)] if piece.text else form.begin(piece.index)
                for part in parts:
                    yield f"data: {json.dumps(head | {'choices': [part]})}\n\n"
        if counted:
            used = usage([found[index] for index in range(len(jobs))], n)
            yield f"data: {json.dumps(head | {'choices': [], 'usage': used})}\n\n"
        yield "data: [DONE]\n\n"
    except CasemillError as error:
        yield _failed(error)


def _failed(error: CasemillError) -> str:
    return f"data: {json.dumps({'error': openai_answers.error(error.detail, error.code)})}\n\n"


def urgency_of(principal: Principal, asked: str | None, tier: str | None = None) -> str:
    """What the header asks for, else the tier, at most what the key allows; by default high, as somebody waits."""
    wanted = TIERS.get(tier or "", Priority.HIGH)
    return max(wanted, principal.ceiling, key=lambda priority: priority.rank) if asked is None else asked
