"""Tasks of clients that use the models directly: text generation and embeddings."""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np

from services.errors import InvalidRequest
from services.models import Model
from workers.engines.base import Sampling, WorkCancelled, check_dimensions
from workers.execution import Execution, Stopped
from workers.toolbox import Toolbox

_SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "json_schema")


def sampling_of(body: dict[str, Any]) -> Sampling:
    """The sampling that a job's input asks for; raises ``InvalidRequest`` code ``sampling_invalid``."""
    values: dict[str, Any] = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    stop = body.get("stop") or ()
    try:
        sampling = Sampling(stop=(stop,) if isinstance(stop, str) else tuple(stop), **values)
        sampling.check()
    except TypeError:
        raise InvalidRequest("a sampling value has the wrong type", code="sampling_invalid") from None
    return sampling


def model_stamp(model: Model) -> dict[str, str]:
    """What a result says of the model that made it."""
    return {"name": model.name, "sha256": model.sha256, "licence": model.licence}


def generate(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Text for a prompt or a chat, streamed while it grows."""
    body = toolbox.input(execution.claim)
    engine = toolbox.engines.generation(str(execution.claim.model), tick=execution.check)
    prompt = str(body["prompt"]) if body.get("prompt") else engine.chat_prompt(body["messages"])
    started = time.monotonic()
    generation = engine.generate(
        prompt,
        sampling_of(body),
        priority=execution.claim.priority.rank,
        on_text=execution.text,
        cancelled=execution.stopped,
        tick=execution.tick,
    )
    if generation.finish_reason == "cancelled":
        raise Stopped
    return {
        "text": generation.text,
        "tokens_in": generation.tokens_in,
        "tokens_out": generation.tokens_out,
        "finish_reason": generation.finish_reason,
        "model": model_stamp(engine.model),
        "seconds": round(time.monotonic() - started, 4),
    }


def embed(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """A vector for each text, as base64 of little-endian float32, L2-normalised; its first ``dimensions`` if asked."""
    body = toolbox.input(execution.claim)
    engine = toolbox.engines.embedding(str(execution.claim.model), tick=execution.check)
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
