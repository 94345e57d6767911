"""Tasks of clients that use the models directly: text generation and embeddings."""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np

from services.errors import InvalidRequest
from services.models import Model
from workers.engines.base import OnText, Sampling, TokenLogprob, WorkCancelled, check_dimensions, no_text
from workers.execution import Execution, Stopped
from workers.tasks.tool_calls import Tools, plain_messages
from workers.toolbox import Toolbox

_SAMPLING = (
    "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "json_schema", "grammar", "regex",
    "repetition_penalty", "frequency_penalty", "presence_penalty", "logprobs",
)  # fmt: skip


def sampling_of(body: dict[str, Any]) -> Sampling:
    """The sampling that a job's input asks for; raises ``InvalidRequest`` code ``sampling_invalid``."""
    values: dict[str, Any] = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    stop = body.get("stop") or ()
    try:
        biases: dict[str, float] = body.get("logit_bias") or {}
        values["logit_bias"] = {int(token): bias for token, bias in biases.items()}
        sampling = Sampling(stop=(stop,) if isinstance(stop, str) else tuple(stop), **values)
        sampling.check()
    except (TypeError, ValueError, AttributeError):
        raise InvalidRequest("a sampling value has the wrong type", code="sampling_invalid") from None
    return sampling


def model_stamp(model: Model) -> dict[str, str]:
    """What a result says of the model that made it."""
    return {"name": model.name, "sha256": model.sha256, "licence": model.licence}


def generate(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Text for a prompt or a chat, streamed while it grows."""
    return write(toolbox, execution, toolbox.input(execution.claim), execution.claim.id, execution.text)


def write(
    toolbox: Toolbox, execution: Execution, body: dict[str, Any], name: str, on_text: OnText = no_text
) -> dict[str, Any]:
    """Text for the input of a generate job; ``name`` is what calls of tools are named by."""
    engine = execution.use(toolbox.engines.lease_generation(str(execution.claim.model), tick=execution.check))
    choice = body.get("tool_choice", "auto")
    tools = Tools(body["tools"], choice) if body.get("tools") and choice != "none" else None
    if body.get("prompt"):
        prompt = str(body["prompt"])
    else:
        prompt = engine.chat_prompt((tools.conversation if tools else plain_messages)(body["messages"]))
    started = time.monotonic()
    generation = engine.generate(
        prompt,
        sampling_of(body | tools.form() if tools else body),
        priority=execution.claim.priority.rank,
        scope=execution.claim.tenant,
        on_text=tools.shown(on_text) if tools else on_text,
        cancelled=execution.stopped,
        tick=execution.tick,
    )
    if generation.finish_reason == "cancelled":
        raise Stopped
    # A call that max_tokens cut off is no call; its text says how far it came.
    calls = tools.called(generation.text, name) if tools and generation.finish_reason == "stop" else []
    result: dict[str, Any] = {
        "text": "" if calls else generation.text,
        "tokens_in": generation.tokens_in,
        "tokens_out": generation.tokens_out,
        "finish_reason": "tool_calls" if calls else generation.finish_reason,
        "model": model_stamp(engine.model),
        "seconds": round(time.monotonic() - started, 4),
    }
    if calls:
        result["tool_calls"] = calls
    if generation.logprobs is not None:
        result["logprobs"] = [_described(logprob) for logprob in generation.logprobs]
    return result


def _described(logprob: TokenLogprob) -> dict[str, Any]:
    """A token's probability as OpenAI writes it; its bytes, as a token may hold a part of a character."""
    own: dict[str, Any] = {
        "token": logprob.piece.decode("utf-8", "replace"),
        "logprob": round(logprob.logprob, 6),
        "bytes": list(logprob.piece),
    }
    return own | {"top_logprobs": [_described(other) for other in logprob.top]} if logprob.top else own


def embed(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """A vector for each text, as base64 of little-endian float32, L2-normalised; its first ``dimensions`` if asked."""
    return vectors_of(toolbox, execution, toolbox.input(execution.claim))


def vectors_of(toolbox: Toolbox, execution: Execution, body: dict[str, Any]) -> dict[str, Any]:
    """The same for the input of an embed job."""
    engine = execution.use(toolbox.engines.lease_embedding(str(execution.claim.model), tick=execution.check))
    dimensions = body.get("dimensions", engine.model.dimensions)
    check_dimensions(dimensions, engine.model)
    started = time.monotonic()
    try:
        embeddings = engine.embed(
            body["texts"],
            priority=execution.claim.priority.rank,
            cancelled=execution.stopped,
            tick=execution.tick,
        ).shortened(dimensions)
    except WorkCancelled:
        raise Stopped from None
    vectors = embeddings.vectors.astype(np.dtype("<f4"), copy=False)
    return {
        "dimensions": int(vectors.shape[1]),
        "vectors": [base64.b64encode(vector.tobytes()).decode() for vector in vectors],
        "tokens": embeddings.tokens,
        "model": model_stamp(engine.model),
        "seconds": round(time.monotonic() - started, 4),
    }
