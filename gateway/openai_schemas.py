"""What OpenAI's endpoints answer, for the description: :mod:`services.openai_answers` writes it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ModelView(BaseModel):
    """A model that is installed here, or that a live worker can serve."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: Literal["generate", "embed"]
    sha256: str
    context_tokens: int
    licence: str | None
    loaded: bool = Field(description="whether a worker holds it in memory")


class ModelList(BaseModel):
    """Models."""

    object: Literal["list"]
    data: list[ModelView]


class Usage(BaseModel):
    """Tokens that were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CallView(BaseModel):
    """The name of a function and the arguments for it, as JSON."""

    name: str
    arguments: str


class ToolCallView(BaseModel):
    """A function that the model asks to be called."""

    id: str
    type: Literal["function"]
    function: CallView
    index: int | None = Field(default=None, description="in a stream: its place among the calls")


class AnswerMessage(BaseModel):
    """The model's message."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCallView] | None = None


class OtherToken(BaseModel):
    """A token that could have stood there."""

    token: str
    logprob: float
    bytes: list[int]


class TokenView(OtherToken):
    """A token, how likely it was, and what else could have stood there."""

    top_logprobs: list[OtherToken]


class ChatLogprobs(BaseModel):
    """How likely each token was."""

    content: list[TokenView]
    refusal: None


class ChatChoice(BaseModel):
    """One of the answers."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletion(BaseModel):
    """An answer to a chat."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    service_tier: str | None = Field(default=None, description="where one was asked for")


class Delta(BaseModel):
    """More of a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallView] | None = None


class ChunkChoice(BaseModel):
    """More of one of the answers; ``finish_reason`` stands in its last piece."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class ChatChunk(BaseModel):
    """A piece of a streamed chat; with ``include_usage`` the last has no choice and the usage."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    service_tier: str | None = None


class TextLogprobs(BaseModel):
    """How likely each token was; ``text_offset`` counts characters of the completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(BaseModel):
    """One of the completions, or in a stream more of it."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str | None


class TextCompletion(BaseModel):
    """How the model goes on, whole or a piece of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None
    service_tier: str | None = None


class EmbeddingView(BaseModel):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """A vector for each text, in their order."""

    object: Literal["list"]
    data: list[EmbeddingView]
    model: str
    usage: EmbeddingsUsage
