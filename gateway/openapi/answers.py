"""How a route says what its answers are beyond their model: headers, streams, lines, files; for ``responses=``."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from gateway.openapi.headers import header_refs

Answer = dict[str, Any]
Answers = dict[int | str, Answer]
REFERRED: Final[set[type[BaseModel]]] = set()
"""Models that only this description refers to, in streams and lines."""


class OpenAIError(BaseModel):
    """A problem where OpenAI's clients look for it."""

    message: str
    type: str
    code: str
    param: None


class StreamFailure(BaseModel):
    """What ends a stream for OpenAI's clients before its time."""

    error: OpenAIError


def ref(model: type[BaseModel]) -> dict[str, str]:
    """A reference to a model's schema."""
    REFERRED.add(model)
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def answer(*headers: str, model: type[BaseModel] | None = None, description: str | None = None) -> Answer:
    """An answer with these headers; of this model, where it is not the route's own."""
    found: Answer = {"headers": header_refs(*headers)}
    if model:
        found["model"] = model
    if description:
        found["description"] = description
    return found


def events(model: type[BaseModel], description: str, *, last: str | None = None) -> Answer:
    """A stream of server-sent events whose ``data`` is this model as JSON; OpenAI's end with ``last`` or an error."""
    data: dict[str, Any] = {"type": "string", "contentMediaType": "application/json", "contentSchema": ref(model)}
    if last:
        failed = data | {"contentSchema": ref(StreamFailure)}
        data = {"anyOf": [data, failed, {"const": last}]}
    event = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": data},
        "required": ["data"],
    }
    return {"description": description, "content": {"text/event-stream": {"itemSchema": event}}}


def lines(media_type: str, model: type[BaseModel], description: str, *headers: str) -> Answer:
    """A line of JSON for each of something."""
    return _body(media_type, description, *headers, itemSchema=ref(model))


def text(media_type: str, description: str, *headers: str) -> Answer:
    """Text of another kind."""
    return _body(media_type, description, *headers)


def either(one: Answer, other: Answer) -> Answer:
    """An answer that is the one or the other, by what the request asks for."""
    return one | {"content": one["content"] | other["content"]}


def _body(media_type: str, description: str, *headers: str, **more: Any) -> Answer:
    content = {media_type: {"schema": {"type": "string"}} | more}
    return {"description": description, "content": content, "headers": header_refs(*headers)}
