"""What the inputs of jobs that use a model directly may hold; anything else is refused before it is queued."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Json,
    ValidationError,
    field_serializer,
    model_validator,
)

from services.errors import InvalidRequest
from services.json_model import JsonModel

Text = Annotated[str, Field(min_length=1)]
Form = Annotated[str, Field(min_length=1, max_length=64 * 1024)]


TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
TokenId = Annotated[str, Field(pattern=r"^\d{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]


class ToolCall(BaseModel):
    """A call that a model made: ``arguments`` is JSON."""

    model_config = ConfigDict(extra="forbid")

    id: str
    name: str
    arguments: Json[dict[str, Any]]

    @field_serializer("arguments")
    def _as_text(self, arguments: dict[str, Any]) -> str:
        return json.dumps(arguments, ensure_ascii=False)


class Tool(JsonModel):
    """A function that the model may ask to be called; ``parameters`` is a JSON schema."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = Field(default=None, max_length=4096)
    parameters: dict[str, Any] | None = None


class ChatMessage(JsonModel):
    """One message of a conversation; an assistant's may call tools, a tool's is a call's result."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: list[ToolCall] | None = Field(default=None, min_length=1, max_length=128)


class GenerateInput(JsonModel):
    """A prompt or a conversation, and how to sample; the engine's own checks are stricter where models differ."""

    model_config = ConfigDict(allow_inf_nan=False)

    prompt: Text | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=2**20)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**64 - 1)
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    json_schema: dict[str, Any] | None = None
    grammar: Form | None = None
    regex: Form | None = None
    repetition_penalty: float | None = Field(default=None, ge=0.1, le=10)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[TokenId, Bias] | None = Field(default=None, max_length=1024)
    logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[Tool] | None = Field(default=None, min_length=1, max_length=128)
    tool_choice: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> GenerateInput:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        names = [tool.name for tool in self.tools or []]
        if len(set(names)) < len(names):
            raise ValueError("each tool needs a name of its own")
        if self.tool_choice not in (None, "none", *(["auto", "required"] if names else []), *names):
            raise ValueError("tool_choice is none, auto, required or the name of one of the tools")
        called = bool(names) and self.tool_choice != "none"
        forms = [self.json_schema, self.grammar, self.regex, called or None]
        if len(forms) - forms.count(None) > 1:
            raise ValueError("json_schema, grammar, regex and tools exclude each other")
        if called and self.messages is None:
            raise ValueError("tools go with messages")
        if self.stop and forms.count(None) < len(forms):
            raise ValueError("stop strings would cut the structured text: leave them out")
        return self


class EmbedInput(JsonModel):
    """Texts to embed, or their tokens by the model's own ids.

    ``dimensions`` asks for the first so many numbers of each vector, of length 1 again.
    """

    texts: list[Text | TokenIds] = Field(min_length=1, max_length=2048)
    dimensions: int | None = Field(default=None, ge=1, le=2**16)


def checked_input(kind: type[BaseModel], body: dict[str, Any]) -> dict[str, Any]:
    """``body`` without nulls, if it fits; raises ``InvalidRequest``: ``input_invalid`` or ``text_invalid``."""
    check_text(body)
    try:
        return kind.model_validate(body, strict=False).model_dump(exclude_none=True)
    except ValidationError as error:
        reasons = [
            f"{'.'.join(str(part) for part in item['loc']) or 'input'}: {item['msg']}" for item in error.errors()
        ]
        raise InvalidRequest("; ".join(reasons[:5]), code="input_invalid") from None


def check_text(value: Any) -> None:
    """Raise code ``text_invalid`` where a string anywhere in ``value`` has a NUL or a lone surrogate."""
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise InvalidRequest("the input has a NUL character, which is not text", code="text_invalid")
            try:
                item.encode()
            except UnicodeEncodeError:
                raise InvalidRequest(
                    "the input has a lone surrogate, which is not Unicode text", code="text_invalid"
                ) from None
        elif isinstance(item, dict):
            members = cast(dict[str, Any], item)
            pending += [*members.keys(), *members.values()]
        elif isinstance(item, list):
            pending += cast(list[Any], item)
