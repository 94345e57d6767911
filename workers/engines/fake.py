"""An engine without weights: deterministic text and vectors for tests and a first look. It says so in every answer."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from itertools import cycle
from typing import Any, Final, cast

import numpy as np

from services.errors import InvalidRequest, Transient
from services.models import Model, fake_model
from workers.engines.base import (
    Cancelled,
    Embeddings,
    FinishReason,
    Generation,
    Messages,
    OnText,
    Sampling,
    TextOrTokens,
    Tick,
    WorkCancelled,
    check_messages,
    check_tokens,
    context_exceeded,
    never,
    no_text,
    no_tick,
)
from workers.engines.text_stream import TextStream

log = logging.getLogger("casemill.engine")

BANNER: Final = "[FAKE ENGINE, NO MODEL: this text means nothing]"
_WORDS: Final = ("the", "party", "shall", "notice", "term", "of", "this", "agreement", "deliver", "within", "days")
_VOCABULARY: Final = 50_000
_TOKEN: Final = re.compile(r"\s*\S+|\s+")


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


class FakeGeneration:
    """A :class:`~workers.engines.base.GenerationEngine` whose tokens are words; the prompt decides the text."""

    def __init__(self, model: Model | None = None, *, context_tokens: int = 4096) -> None:
        log.warning("the FAKE engine is in use: it has no model and its answers mean nothing")
        self.model = model or fake_model("generate")
        self.context_tokens = context_tokens
        self.stalled_seconds = 0.0
        self._closed = False

    def generate(
        self,
        prompt: str,
        sampling: Sampling,
        *,
        priority: int = 2,
        scope: str = "",
        on_text: OnText = no_text,
        cancelled: Cancelled = never,
        tick: Tick = no_tick,
    ) -> Generation:
        """See :meth:`workers.engines.base.GenerationEngine.generate`."""
        del priority, scope  # every request has an engine of its own here
        sampling.check()
        if sampling.grammar is not None or sampling.regex is not None:
            raise InvalidRequest("The fake engine follows no grammars.", code="schema_unsupported")
        if sampling.logprobs is not None:
            raise InvalidRequest("The fake engine has no probabilities: leave logprobs out.", code="sampling_invalid")
        tokens_in = self.count_tokens(prompt)
        if tokens_in + sampling.max_tokens > self.context_tokens:
            what = "The prompt with max_tokens"
            raise context_exceeded(what, tokens_in + sampling.max_tokens, self.context_tokens)
        stream = TextStream(sampling.stop)
        produced = 0
        reason: FinishReason = "stop"
        for piece in self._pieces(prompt, sampling):
            if self._closed:
                raise Transient("The fake engine was closed; try again.", code="engine_closed")
            if cancelled():
                reason = "cancelled"
                break
            if produced == sampling.max_tokens:
                reason = "length"
                break
            produced += 1
            if ready := stream.push(piece.encode()):
                on_text(ready)
            tick()
            if stream.stopped:
                break
        if ready := stream.finish():
            on_text(ready)
        return Generation(stream.text, tokens_in, produced, reason)

    def _pieces(self, prompt: str, sampling: Sampling) -> list[str]:
        if sampling.json_schema is not None:
            return _tokens(json.dumps(minimal_instance(sampling.json_schema)))
        seed = 0 if sampling.seed is None or sampling.temperature == 0 else sampling.seed
        digest = hashlib.sha256(f"{seed}:{prompt}".encode("utf-8", "replace")).digest()
        words = [_WORDS[byte % len(_WORDS)] for byte, _ in zip(cycle(digest), range(24), strict=False)]
        return [*_tokens(BANNER), *(f" {word}" for word in words), "."]

    def chat_prompt(self, messages: Messages) -> str:
        """One line a message."""
        return "\n".join(f"{item['role']}: {item['content']}" for item in check_messages(messages))

    def count_tokens(self, text: str) -> int:
        """Words of ``text``."""
        return len(_tokens(text))

    def forget(self) -> None:
        """It keeps nothing."""

    def close(self) -> None:
        """End what still runs."""
        self._closed = True


class FakeEmbeddings:
    """A :class:`~workers.engines.base.EmbeddingEngine` whose vectors come from a hash of the text."""

    def __init__(self, model: Model | None = None) -> None:
        log.warning("the FAKE embedding engine is in use: its vectors mean nothing")
        self.model = model or fake_model("embed")
        self.limit = self.model.context_tokens
        self.stalled_seconds = 0.0

    def embed(
        self, texts: Sequence[TextOrTokens], *, priority: int = 2, cancelled: Cancelled = never, tick: Tick = no_tick
    ) -> Embeddings:
        """See :meth:`workers.engines.base.EmbeddingEngine.embed`; a token's id is read as a word."""
        del priority  # every call is computed at once
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                check_tokens(f"Input {index}", text, _VOCABULARY)
        texts = [text if isinstance(text, str) else " ".join(map(str, text)) for text in texts]
        tokens = [len(_tokens(text)) for text in texts]
        vectors = np.zeros((len(texts), self.model.dimensions), np.float32)
        for index, text in enumerate(texts):
            if cancelled():
                raise WorkCancelled("The embedding was cancelled.")
            if tokens[index] > self.model.context_tokens:
                raise context_exceeded(f"Input {index}", tokens[index], self.model.context_tokens)
            key = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:16], "little")
            vector = np.random.Generator(np.random.Philox(key=key)).standard_normal(self.model.dimensions)
            vectors[index] = vector / np.linalg.norm(vector)
            tick()
        return Embeddings(vectors=vectors, tokens=tokens)

    def embed_in_context(
        self, texts: Sequence[str], *, priority: int = 2, cancelled: Cancelled = never, tick: Tick = no_tick
    ) -> Embeddings:
        """See :meth:`workers.engines.base.EmbeddingEngine.embed_in_context`; neighbours change nothing here."""
        return self.embed(texts, priority=priority, cancelled=cancelled, tick=tick)

    def count_tokens(self, text: str) -> int:
        """Words of ``text``."""
        return len(_tokens(text))

    def close(self) -> None:
        """Nothing to free."""


def minimal_instance(schema: dict[str, Any]) -> Any:
    """A small value that satisfies a schema of the common keywords; ``schema_unsupported`` for others."""
    return _instance(schema, schema, 0)


def _instance(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if schema is True or schema == {}:
        return None
    if not isinstance(schema, dict) or depth > 32:
        raise InvalidRequest("The fake engine cannot satisfy this JSON schema.", code="schema_unsupported")
    node = cast(dict[str, Any], schema)
    if "const" in node:
        return node["const"]
    if node.get("enum"):
        return node["enum"][0]
    if reference := node.get("$ref"):
        target: Any = root
        for part in str(reference).removeprefix("#").split("/")[1:]:
            target = target[part.replace("~1", "/").replace("~0", "~")]
        return _instance(target, root, depth + 1)
    for key in ("anyOf", "oneOf"):
        if node.get(key):
            return _instance(node[key][0], root, depth + 1)
    kind: Any = node.get("type", "object" if "properties" in node else "null")
    name = kind if isinstance(kind, str) else str(kind[0])
    return _of_type(name, node, root, depth)


def _of_type(kind: str, node: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    if kind == "object":
        properties = node.get("properties", {})
        return {name: _instance(properties.get(name, True), root, depth + 1) for name in node.get("required", [])}
    if kind == "array":
        return [_instance(node.get("items", True), root, depth + 1) for _ in range(int(node.get("minItems", 0)))]
    if kind == "string":
        if "pattern" in node or "format" in node:
            raise InvalidRequest("The fake engine writes no patterns or formats.", code="schema_unsupported")
        return "fake".ljust(int(node.get("minLength", 0)), "e")[: int(node.get("maxLength", 4096))]
    if kind in ("integer", "number"):
        return node.get("minimum", min(0, node.get("maximum", 0)))
    return {"boolean": False, "null": None}[kind]
