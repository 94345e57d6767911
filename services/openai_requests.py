"""The parts of OpenAI's wire types that Casemill takes; what it cannot honour is refused, not ignored."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from services.errors import InvalidRequest, validation_reasons
from services.job_inputs import Text, TokenIds
from services.jobs import Metadata
from services.json_model import JsonModel

MOST_CHOICES: Final = 128
"""Choices of one answer: each is a job."""


class TextPart(JsonModel):
    """A text part of a message's content."""

    type: Literal["text"]
    text: str


class CalledFunction(BaseModel):
    """A function with the arguments of a call, as JSON."""

    name: str
    arguments: str


class ChatCompletionMessageToolCall(BaseModel):
    """A call in an assistant's message."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(JsonModel):
    """A message of a chat; content is text or text parts, beside calls it may be missing."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[ChatCompletionMessageToolCall] | None = None
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


class Function(JsonModel):
    """A function that the model may ask to be called. Its arguments are always held to ``parameters``."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(JsonModel):
    """A tool; functions are the only kind."""

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


class ResponseFormat(JsonModel):
    """Text, any JSON object, or JSON under a schema."""

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


class Generation(JsonModel):
    """What chats and completions have in common: the model, how to sample, how many choices, how urgent."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(default=1, ge=1, le=MOST_CHOICES)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: str | list[str] | None = None
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, ge=0.1, le=10)
    logit_bias: dict[str, float] | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    user: str | None = None
    metadata: Metadata | None = None

    @field_validator("n", mode="before")
    @classmethod
    def _one_where_unset(cls, value: Any) -> Any:
        return 1 if value is None else value

    def choices(self, **own: Any) -> list[dict[str, Any]]:
        """The input of a generate job for each choice, ``own`` in each; from the second on with seeds of their own."""
        values = own | {
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "stop": [self.stop] if isinstance(self.stop, str) else self.stop,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "repetition_penalty": self.repetition_penalty,
            "logit_bias": self.logit_bias,
        }
        given = {name: value for name, value in values.items() if value is not None}
        return [given | ({} if self.seed is None else {"seed": self.seed + number}) for number in range(self.n)]


class ChatRequest(Generation):
    """A request for a chat completion."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    response_format: ResponseFormat | None = None
    store: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[FunctionTool] | None = Field(default=None, min_length=1)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _logprobs_where_asked(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        return self

    def job_inputs(self) -> list[dict[str, Any]]:
        """The input of a generate job for each choice."""
        choice = self.tool_choice
        return self.choices(
            messages=[message.plain() for message in self.messages],
            max_tokens=self.max_completion_tokens or self.max_tokens,
            json_schema=self.response_format.schema_of_answer() if self.response_format else None,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            tools=[tool.function.model_dump(exclude={"strict"}) for tool in self.tools] if self.tools else None,
            tool_choice=choice.function.name if isinstance(choice, NamedTool) else choice,
        )


class CompletionRequest(Generation):
    """A request to go on from texts as they are, without a chat template."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_CHOICES)]
    max_tokens: int = Field(default=16, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=5)
    echo: Literal[False] | None = None
    suffix: None = None
    best_of: int | None = None

    @model_validator(mode="after")
    def _fits(self) -> CompletionRequest:
        if self.best_of not in (None, self.n):
            raise ValueError("best_of other than n is not supported")
        if self.n * len(self.prompts) > MOST_CHOICES:
            raise ValueError(f"n for each prompt makes more than {MOST_CHOICES} choices")
        return self

    @property
    def prompts(self) -> list[str]:
        """The prompts as a list."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def job_inputs(self) -> list[dict[str, Any]]:
        """The input of a generate job for each choice, those of the first prompt first."""
        return [
            given
            for prompt in self.prompts
            for given in self.choices(prompt=prompt, max_tokens=self.max_tokens, logprobs=self.logprobs)
        ]


class EmbeddingsRequest(JsonModel):
    """A request for embeddings of texts, or of tokens by the model's own ids."""

    model: str
    input: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(min_length=1, max_length=2048)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=2048)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1, le=2**16)
    user: str | None = None

    def job_input(self) -> dict[str, Any]:
        """The input of an embed job."""
        single = isinstance(self.input, str) or isinstance(self.input[0], int)
        texts = [self.input] if single else self.input
        return {"texts": texts} | ({} if self.dimensions is None else {"dimensions": self.dimensions})

    def encode(self, vector: str) -> list[float] | str:
        """A vector in the asked format, from base64 of little-endian float32, which is also OpenAI's base64 format."""
        if self.encoding_format == "base64":
            return vector
        raw = base64.b64decode(vector)
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))


Asked = TypeVar("Asked", bound=BaseModel)


def parsed(kind: type[Asked], body: Any) -> Asked:
    """The request in a body that came by no route; refused as the route would, code ``request_invalid``."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise InvalidRequest(validation_reasons(error.errors(), "body"), code="request_invalid") from None
