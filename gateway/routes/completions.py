"""OpenAI's ``/v1/chat/completions`` and ``/v1/completions``: each choice is a job that waits in the queue like any."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse

from gateway import choices
from gateway.openai_schemas import (
    ChatRequest,
    CompletionRequest,
    Generation,
    chat_logprobs,
    completion_logprobs,
    openai_calls,
)
from gateway.schemas import JobRequest
from gateway.state import Gateway, MatterSubmitter, Shared
from gateway.while_allowed import while_allowed
from services.errors import CasemillError
from services.jobs import Priority
from services.principal import Principal

router = APIRouter(prefix="/v1", tags=["openai"])

Urgency = Annotated[str | None, Header(alias="X-Casemill-Priority")]
_TIERS = {"flex": Priority.LOW, "priority": Priority.CRITICAL}


class Chat:
    """How chats are written: the object's name, a choice at its end, a piece of one in a stream."""

    id, object, part = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, result: dict[str, Any]) -> dict[str, Any]:
        """A whole choice."""
        calls = openai_calls(result)
        content = {"content": None, "tool_calls": calls} if calls else {"content": result["text"]}
        message = {"role": "assistant", "refusal": None} | content
        return _choice(index, chat_logprobs(result), result["finish_reason"]) | {"message": message}

    def begin(self, index: int) -> list[dict[str, Any]]:
        """What stands before any text."""
        return [_choice(index) | {"delta": {"role": "assistant", "content": ""}}]

    def text(self, index: int, text: str) -> dict[str, Any]:
        """More text."""
        return _choice(index) | {"delta": {"content": text}}

    def end(self, index: int, result: dict[str, Any]) -> list[dict[str, Any]]:
        """Calls, and why it ended."""
        calls = [{"index": number} | call for number, call in enumerate(openai_calls(result))]
        called = [_choice(index) | {"delta": {"tool_calls": calls}}] if calls else []
        return [*called, _choice(index, chat_logprobs(result), result["finish_reason"]) | {"delta": {}}]


class Completion:
    """How completions are written; as :class:`Chat`."""

    id, object, part = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, result: dict[str, Any]) -> dict[str, Any]:
        """A whole choice."""
        return _choice(index, completion_logprobs(result), result["finish_reason"]) | {"text": result["text"]}

    def begin(self, index: int) -> list[dict[str, Any]]:
        """Nothing stands before the text."""
        del index
        return []

    def text(self, index: int, text: str) -> dict[str, Any]:
        """More text."""
        return _choice(index) | {"text": text}

    def end(self, index: int, result: dict[str, Any]) -> list[dict[str, Any]]:
        """Why it ended."""
        return [_choice(index, completion_logprobs(result), result["finish_reason"]) | {"text": ""}]


@router.post("/chat/completions", response_model=None)
async def chat(
    body: ChatRequest, request: Request, gateway: Shared, principal: MatterSubmitter, priority: Urgency = None
) -> dict[str, Any] | StreamingResponse:
    """A chat completion, whole or streamed; waits in the queue like any job."""
    return await _answer(Chat(), body, body.job_inputs(), request, gateway, principal, priority)


@router.post("/completions", response_model=None)
async def completions(
    body: CompletionRequest, request: Request, gateway: Shared, principal: MatterSubmitter, priority: Urgency = None
) -> dict[str, Any] | StreamingResponse:
    """How the model goes on from each prompt as it stands, whole or streamed."""
    return await _answer(Completion(), body, body.job_inputs(), request, gateway, principal, priority)


async def _answer(
    form: Chat | Completion,
    body: Generation,
    inputs: Sequence[dict[str, Any]],
    request: Request,
    gateway: Gateway,
    principal: Principal,
    priority: str | None,
) -> dict[str, Any] | StreamingResponse:
    urgency = urgency_of(principal, priority, body.service_tier)
    wanted = [
        JobRequest(type="generate", model=body.model, priority=urgency, input=given, metadata=body.metadata or {})
        for given in inputs
    ]
    jobs = await choices.submit(gateway, principal, wanted, request)
    head: dict[str, Any] = {
        "id": f"{form.id}-{jobs[0].removeprefix('job_')}",
        "created": int(time.time()),
        "model": body.model,
    }
    if body.service_tier is not None:
        head["service_tier"] = next((tier for tier, level in _TIERS.items() if level == urgency), "default")
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        chunks = _stream(form, gateway, principal.tenant, jobs, head, body.n, usage)
        stream = while_allowed(gateway, principal, chunks, _failed)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    found = await choices.results(gateway, principal.tenant, jobs, request)
    answered = [form.choice(index, result) for index, result in enumerate(found)]
    return head | {"object": form.object, "choices": answered, "usage": _usage(found, body.n)}


async def _stream(
    form: Chat | Completion, gateway: Gateway, tenant: str, jobs: list[str], head: dict[str, Any], n: int, usage: bool
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
        if usage:
            used = _usage([found[index] for index in range(len(jobs))], n)
            yield f"data: {json.dumps(head | {'choices': [], 'usage': used})}\n\n"
        yield "data: [DONE]\n\n"
    except CasemillError as error:
        yield _failed(error)


def _failed(error: CasemillError) -> str:
    told = {"message": error.detail, "type": "casemill_error", "code": error.code, "param": None}
    return f"data: {json.dumps({'error': told})}\n\n"


def urgency_of(principal: Principal, asked: str | None, tier: str | None = None) -> str:
    """What the header asks for, else the tier, at most what the key allows; by default high, as somebody waits."""
    wanted = _TIERS.get(tier or "", Priority.HIGH)
    return asked or max(wanted, principal.ceiling, key=lambda priority: priority.rank)


def _choice(index: int, logprobs: dict[str, Any] | None = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "logprobs": logprobs, "finish_reason": finish}


def _usage(found: Sequence[dict[str, Any]], n: int) -> dict[str, int]:
    """Tokens of all choices; those of a prompt, of which there are ``n``, count once."""
    tokens_in = sum(result["tokens_in"] for result in found[::n])
    tokens_out = sum(result["tokens_out"] for result in found)
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
