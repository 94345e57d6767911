"""How OpenAI's endpoints write what came of jobs: whole, as pieces of a stream, as an error; for routes and batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from services.jobs import Priority
from services.openai_requests import EmbeddingsRequest, Generation

TIERS = {"flex": Priority.LOW, "priority": Priority.CRITICAL}


class Chat:
    """How chats are written: the object's name, a choice at its end, a piece of one in a stream."""

    id, object, part = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, result: dict[str, Any]) -> dict[str, Any]:
        """A whole choice."""
        calls = _calls(result)
        content = {"content": None, "tool_calls": calls} if calls else {"content": result["text"]}
        message = {"role": "assistant", "refusal": None} | content
        return _choice(index, _chat_logprobs(result), result["finish_reason"]) | {"message": message}

    def begin(self, index: int) -> list[dict[str, Any]]:
        """What stands before any text."""
        return [_choice(index) | {"delta": {"role": "assistant", "content": ""}}]

    def text(self, index: int, text: str) -> dict[str, Any]:
        """More text."""
        return _choice(index) | {"delta": {"content": text}}

    def end(self, index: int, result: dict[str, Any]) -> list[dict[str, Any]]:
        """Calls, and why it ended."""
        calls = [{"index": number} | call for number, call in enumerate(_calls(result))]
        called = [_choice(index) | {"delta": {"tool_calls": calls}}] if calls else []
        return [*called, _choice(index, _chat_logprobs(result), result["finish_reason"]) | {"delta": {}}]


class Completion:
    """How completions are written; as :class:`Chat`."""

    id, object, part = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, result: dict[str, Any]) -> dict[str, Any]:
        """A whole choice."""
        return _choice(index, _completion_logprobs(result), result["finish_reason"]) | {"text": result["text"]}

    def begin(self, index: int) -> list[dict[str, Any]]:
        """Nothing stands before the text."""
        del index
        return []

    def text(self, index: int, text: str) -> dict[str, Any]:
        """More text."""
        return _choice(index) | {"text": text}

    def end(self, index: int, result: dict[str, Any]) -> list[dict[str, Any]]:
        """Why it ended."""
        return [_choice(index, _completion_logprobs(result), result["finish_reason"]) | {"text": ""}]


Form = Chat | Completion


def head(form: Form, asked: Generation, job: str, priority: str) -> dict[str, Any]:
    """What stands in a whole answer and in each piece of one; ``job`` is the id of its first job or of its line."""
    begun = {"id": f"{form.id}-{job.partition('_')[2]}", "created": int(time.time()), "model": asked.model}
    if asked.service_tier is None:
        return begun
    return begun | {"service_tier": next((tier for tier, level in TIERS.items() if level == priority), "default")}


def completion(form: Form, head: dict[str, Any], found: Sequence[dict[str, Any]], n: int) -> dict[str, Any]:
    """A whole answer from the results of its choices, of which there are ``n`` a prompt."""
    answered = [form.choice(index, result) for index, result in enumerate(found)]
    return head | {"object": form.object, "choices": answered, "usage": usage(found, n)}


def usage(found: Sequence[dict[str, Any]], n: int) -> dict[str, int]:
    """Tokens of all choices; those of a prompt, of which there are ``n``, count once."""
    tokens_in = sum(result["tokens_in"] for result in found[::n])
    tokens_out = sum(result["tokens_out"] for result in found)
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


def embeddings(asked: EmbeddingsRequest, result: dict[str, Any]) -> dict[str, Any]:
    """The answer from the result of an embed job."""
    data = [
        {"object": "embedding", "index": index, "embedding": asked.encode(vector)}
        for index, vector in enumerate(result["vectors"])
    ]
    tokens = sum(result["tokens"])
    used = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": asked.model, "usage": used}


def error(detail: str, code: str) -> dict[str, Any]:
    """A problem where OpenAI's clients look for the reason."""
    return {"message": detail, "type": "casemill_error", "code": code, "param": None}


def _choice(index: int, logprobs: dict[str, Any] | None = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "logprobs": logprobs, "finish_reason": finish}


def _calls(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for call in result.get("tool_calls", [])
    ]


def _chat_logprobs(result: dict[str, Any]) -> dict[str, Any] | None:
    if "logprobs" not in result:
        return None
    return {"content": [{"top_logprobs": []} | token for token in result["logprobs"]], "refusal": None}


def _completion_logprobs(result: dict[str, Any]) -> dict[str, Any] | None:
    """``text_offset`` counts characters of the completion."""
    if "logprobs" not in result:
        return None
    tokens: list[dict[str, Any]] = result["logprobs"]
    ends = list(accumulate(tokens, lambda held, token: held + bytes(token["bytes"]), initial=b""))
    return {
        "tokens": [token["token"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [
            {other["token"]: other["logprob"] for other in token.get("top_logprobs", [])} for token in tokens
        ],
        "text_offset": [len(held.decode("utf-8", "ignore")) for held in ends[:-1]],
    }
