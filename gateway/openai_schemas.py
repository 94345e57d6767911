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


class CalledFunction(BaseModel):
    """A function with the arguments of a call, as JSON."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call in an assistant's message."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(BaseModel):
    """A message of a chat; content is text or text parts, beside calls it may be missing."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: None = None

    @model_validator(mode="after")
    def _complete(self) -> Message:
        if self.content is None and not self.tool_calls:
            raise ValueError("a message needs content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant's message calls tools")
        return self

    def plain(self) -> dict[str, Any]:
        """Role, text and calls."""
        parts = [TextPart(type="text", text=self.content)] if isinstance(self.content, str) else self.content or []
        plain: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": "".join(part.text for part in parts),
        }
        if self.tool_calls:
            plain["tool_calls"] = [{"id": call.id} | call.function.model_dump() for call in self.tool_calls]
        return plain


class Function(BaseModel):
    """A function that the model may ask to be called. Its arguments are always held to ``parameters``."""

    model_config = ConfigDict(extra="forbid")

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(BaseModel):
    """A tool; functions are the only kind."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: Function


class NamedFunction(BaseModel):
    """The name of a function."""

    name: str


class NamedTool(BaseModel):
    """The choice of one function."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(BaseModel):
    """The schema of a structured answer."""

    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(BaseModel):
    """Text, any JSON object, or JSON under a schema."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_where_asked(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type json_schema, and only with it")
        return self

    def schema_of_answer(self) -> dict[str, Any] | None:
        """The JSON schema that the answer is held to, if any."""
        if self.type == "json_object":
            return {"type": "object"}
        return self.json_schema.schema_ if self.json_schema else None


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
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, ge=0.1, le=10)
    logit_bias: dict[str, float] | None = None
    tools: list[FunctionTool] | None = Field(default=None, min_length=1)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _logprobs_where_asked(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        return self

    def job_input(self) -> dict[str, Any]:
        """The input of a generate job."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        choice = self.tool_choice
        values: dict[str, Any] = {
            "messages": [message.plain() for message in self.messages],
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "seed": self.seed,
            "stop": stop,
            "json_schema": self.response_format.schema_of_answer() if self.response_format else None,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "repetition_penalty": self.repetition_penalty,
            "logit_bias": self.logit_bias,
            "logprobs": (self.top_logprobs or 0) if self.logprobs else None,
            "tools": [tool.function.model_dump(exclude={"strict"}) for tool in self.tools] if self.tools else None,
            "tool_choice": choice.function.name if isinstance(choice, NamedTool) else choice,
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


def openai_calls(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of a generate job's result as OpenAI writes them."""
    return [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for call in result.get("tool_calls", [])
    ]


def openai_logprobs(result: dict[str, Any]) -> dict[str, Any] | None:
    """The log-probabilities of a generate job's result as OpenAI writes them."""
    if "logprobs" not in result:
        return None
    return {"content": [{"top_logprobs": []} | token for token in result["logprobs"]], "refusal": None}
