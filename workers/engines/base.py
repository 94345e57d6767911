"""The types that all engines share: what a task asks of an engine and what it gets back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidRequest, Permanent
from services.models import Model

Messages = Sequence[Mapping[str, str]]
OnText = Callable[[str], None]
Cancelled = Callable[[], bool]
Tick = Callable[[], None]
FinishReason = Literal["stop", "length", "cancelled"]

MAX_STOPS: Final = 16
MAX_STOP_CHARS: Final = 256
MAX_BIASES: Final = 1024
MAX_TOP_LOGPROBS: Final = 20


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    ``temperature`` 0 takes the likeliest token. Otherwise the distribution is tempered first, then cut: ``top_k`` keeps
    that many tokens (0: all), ``top_p`` the smallest set with that mass, ``min_p`` those at least that fraction as
    likely as the likeliest. The same ``seed`` gives the same text whatever else the engine runs; ``None`` draws a fresh
    one. One of ``json_schema``, ``grammar`` (Lark, as llguidance reads it) and ``regex`` holds the text to a form.

    Before that, ``repetition_penalty`` divides positive logits and multiplies negative ones of the tokens among the
    last 64 of prompt and text; ``frequency_penalty`` times their count and ``presence_penalty`` are taken off those of
    the tokens written so far (the prompt does not count); ``logit_bias`` adds −100 to 100 to those of single tokens.
    What a form excludes stays excluded.

    ``logprobs`` asks for the probability of each token and that many of the likeliest at its place (0: the token's
    alone). They are the model's own: before temperature, penalties, biases and cuts, under a form among the tokens that
    it allows.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None
    regex: str | None = None
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    logprobs: int | None = None

    def check(self) -> None:
        """Raise ``InvalidRequest`` ``sampling_invalid`` where a value is no number or out of its range."""
        forms = sum(form is not None for form in (self.json_schema, self.grammar, self.regex))
        problems = [
            (1 <= self.max_tokens <= 2**20, f"max_tokens must be 1 to {2**20}, not {self.max_tokens}"),
            (_within(self.temperature, 0.0, 10.0), f"temperature must be 0 to 10, not {self.temperature}"),
            (_within(self.top_p, 0.0, 1.0) and self.top_p > 0, f"top_p must be above 0, at most 1, not {self.top_p}"),
            (_within(self.min_p, 0.0, 1.0), f"min_p must be 0 to 1, not {self.min_p}"),
            (0 <= self.top_k <= 2**31 - 1, f"top_k must be 0 (off) or more, not {self.top_k}"),
            (self.seed is None or -(2**63) <= self.seed < 2**64, "seed must fit into 64 bits"),
            (len(self.stop) <= MAX_STOPS, f"at most {MAX_STOPS} stop strings"),
            (
                all(0 < len(stop) <= MAX_STOP_CHARS for stop in self.stop),
                f"stop strings have 1 to {MAX_STOP_CHARS} chars",
            ),
            (
                _within(self.repetition_penalty, 0.1, 10.0),
                f"repetition_penalty must be 0.1 to 10, not {self.repetition_penalty}",
            ),
            (
                _within(self.frequency_penalty, -2.0, 2.0) and _within(self.presence_penalty, -2.0, 2.0),
                "frequency_penalty and presence_penalty must be -2 to 2",
            ),
            (len(self.logit_bias) <= MAX_BIASES, f"logit_bias may name {MAX_BIASES:,} tokens at most"),
            (
                all(token >= 0 and _within(bias, -100.0, 100.0) for token, bias in self.logit_bias.items()),
                "logit_bias maps token ids to -100 to 100",
            ),
            (
                self.logprobs is None or 0 <= self.logprobs <= MAX_TOP_LOGPROBS,
                f"logprobs must be 0 to {MAX_TOP_LOGPROBS}",
            ),
            (forms <= 1, "json_schema, grammar and regex exclude each other"),
            (not (self.stop and forms), "stop strings would cut the structured text: leave them out"),
        ]
        for fine, problem in problems:
            if not fine:
                raise InvalidRequest(f"Sampling: {problem}.", code="sampling_invalid")


def _within(value: float, low: float, high: float) -> bool:
    return math.isfinite(value) and low <= value <= high


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, the logarithm of its probability, the likeliest ones at its place; ``piece`` is how it is spelled."""

    token: int
    logprob: float
    top: tuple[TokenLogprob, ...] = ()
    piece: bytes = b""


@dataclass(frozen=True, slots=True)
class Generation:
    """The text of one request. ``stop``: the model or a stop string ended it; ``length``: ``max_tokens`` did.

    ``logprobs`` has an entry for each of the ``tokens_out``, those of a stop string too, where they were asked for.
    """

    text: str
    tokens_in: int
    tokens_out: int
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """``vectors``: float32 of shape (texts, dimensions), each of length 1; ``tokens``: how many each text has."""

    vectors: NDArray[np.float32]
    tokens: list[int]

    def shortened(self, dimensions: int) -> Embeddings:
        """The first ``dimensions`` of each vector, of length 1 again; all of them change nothing."""
        if dimensions == self.vectors.shape[1]:
            return self
        vectors = self.vectors[:, :dimensions]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        lengths[lengths == 0] = 1  # where nothing is in its first numbers, zeros and not "no number"
        return Embeddings((vectors / lengths).astype(np.float32, copy=False), self.tokens)


def no_text(_text: str) -> None:
    """For callers that do not stream."""


def never() -> bool:
    """For callers that never cancel."""
    return False


def no_tick() -> None:
    """For callers without a lease to renew."""


class WorkCancelled(Permanent):
    """The work was cancelled while it ran."""

    default_code = "cancelled"


class GenerationEngine(Protocol):
    """Writes text. All methods may be called from many threads at once."""

    @property
    def model(self) -> Model:
        """The model behind this engine."""
        ...

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
        """Continue ``prompt``; blocks until the text is complete.

        ``priority`` 0 is the most urgent; what prompts of one ``scope`` begin with alike is computed once. The
        callbacks run in the calling thread: ``on_text`` gets the text piece by piece, ``cancelled`` is asked between
        steps, ``tick`` is called while the engine makes progress. Raises ``InvalidRequest`` (``context_exceeded``,
        ``sampling_invalid``, ``schema_unsupported``) or ``Transient``.
        """
        ...

    def chat_prompt(self, messages: Messages) -> str:
        """The prompt for a conversation of ``{"role", "content"}``; pass it on as it is. ``InvalidRequest`` if none."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of ``text`` as a prompt."""
        ...

    def forget(self) -> None:
        """Keep nothing of prompts that have ended: what several began with alike is computed again."""
        ...

    @property
    def stalled_seconds(self) -> float:
        """Seconds since the last step while there is work in flight; 0.0 when idle. Never blocks."""
        ...

    def close(self) -> None:
        """Free everything; requests in flight fail with ``Transient``."""
        ...


TextOrTokens = str | list[int]
"""A text, or its tokens by the model's own ids, with or without those that mark its ends."""


class EmbeddingEngine(Protocol):
    """Turns texts into vectors. All methods may be called from many threads at once."""

    @property
    def model(self) -> Model:
        """The model behind this engine."""
        ...

    def embed(
        self, texts: Sequence[TextOrTokens], *, priority: int = 2, cancelled: Cancelled = never, tick: Tick = no_tick
    ) -> Embeddings:
        """One vector a text, in order. A text over the limit is never cut: ``InvalidRequest`` ``context_exceeded``.

        Texts of ``priority`` 0 are the most urgent: they are in the next batch, whatever else waits. Raises
        ``InvalidRequest`` ``token_unknown`` for ids that the model has not, ``WorkCancelled`` where ``cancelled`` says
        so while it waits.
        """
        ...

    def embed_in_context(
        self, texts: Sequence[str], *, priority: int = 2, cancelled: Cancelled = never, tick: Tick = no_tick
    ) -> Embeddings:
        """One vector a text, as :meth:`embed`, of texts that follow one another: each computed among its neighbours.

        A vector is the mean over its text's tokens in a window of :mod:`workers.engines.windows`, marks of its ends not
        counted. Raises ``ModelError`` ``model_unusable`` where the model's vectors are no means of tokens.
        """
        ...

    @property
    def limit(self) -> int:
        """Tokens of the longest text."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of ``text``, those that mark its ends included."""
        ...

    @property
    def stalled_seconds(self) -> float:
        """Seconds since the last step while there is work in flight; 0.0 when idle. Never blocks."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


def check_messages(messages: Messages) -> list[dict[str, str]]:
    """The messages as plain dictionaries. Raises ``InvalidRequest`` ``messages_invalid``."""
    plain = [{str(key): value for key, value in message.items()} for message in messages]
    if not plain:
        raise InvalidRequest("There is no message to answer.", code="messages_invalid")
    for index, message in enumerate(plain):
        if not message.get("role") or not isinstance(message.get("content"), str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(f"Message {index} needs a role and a text content.", code="messages_invalid")
    return plain


def check_dimensions(dimensions: int, model: Model) -> None:
    """Raise ``InvalidRequest`` ``dimensions_invalid`` where the model's vectors have no such beginning."""
    if not 1 <= dimensions <= model.dimensions:
        raise InvalidRequest(
            f"dimensions must be 1 to {model.dimensions}, the width of {model.name}, not {dimensions}.",
            code="dimensions_invalid",
        )


def check_tokens(what: str, ids: Sequence[int], vocabulary: int) -> None:
    """Raise ``InvalidRequest`` ``token_unknown`` where an id is none of a model's, of which there are so many."""
    wrong = next((token for token in ids if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise InvalidRequest(
            f"{what} has the token {wrong}; the model's ids go from 0 to {vocabulary - 1:,}.", code="token_unknown"
        )


def context_exceeded(what: str, tokens: int, limit: int) -> InvalidRequest:
    """The error for text that does not fit; nothing is ever cut off silently."""
    return InvalidRequest(
        f"{what} has {tokens:,} tokens and the limit is {limit:,}. Shorten it or split it; nothing was cut off.",
        code="context_exceeded",
    )
