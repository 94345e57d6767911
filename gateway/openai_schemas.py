"""The parts of OpenAI's wire types that Casemill takes; what it cannot honour is refused, not ignored."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.schemas import Metadata

Text = Annotated[str, Field(min_length=1)]


class TextPart(BaseModel):
    """A text part of a message's content."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A message of a chat; content is text or text parts."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> dict[str, str]:
        """Role and text."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class JsonSchema(BaseModel):
    """The schema of a structured answer."""

    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(BaseModel):
    """Text, or JSON under a schema."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_where_asked(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type json_schema, and only with it")
        return self


class StreamOptions(BaseModel):
    """What a stream carries beside text."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A request for a chat completion."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    response_format: ResponseFormat | None = None
    n: Literal[1] | None = None
    user: str | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    logprobs: Literal[False] | None = None

    def job_input(self) -> dict[str, Any]:
        """The input of a generate job."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        schema = self.response_format.json_schema if self.response_format else None
        values: dict[str, Any] = {
            "messages": [message.plain() for message in self.messages],
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "seed": self.seed,
            "stop": stop,
            "json_schema": schema.schema_ if schema else None,
        }
        return {name: value for name, value in values.items() if value is not None}


class EmbeddingsRequest(BaseModel):
    """A request for embeddings."""

    model_config = ConfigDict(extra="forbid")

    model: str
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1, le=2**16)
    user: str | None = None

    def job_input(self) -> dict[str, Any]:
        """The input of an embed job."""
        texts = [self.input] if isinstance(self.input, str) else self.input
        return {"texts": texts} | ({} if self.dimensions is None else {"dimensions": self.dimensions})

    def encode(self, vector: str) -> list[float] | str:
        """A vector in the asked format, from base64 of little-endian float32, which is also OpenAI's base64 format."""
        if self.encoding_format == "base64":
            return vector
        raw = base64.b64decode(vector)
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))
