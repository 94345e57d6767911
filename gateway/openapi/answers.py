"""How a route says what its answers are beyond their model: headers, streams, lines, files; for ``responses=``."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from gateway.openapi.headers import header_refs

Answer = dict[str, Any]
Answers = dict[int | str, Answer]
Events = dict[type[BaseModel], tuple[str, ...]]
"""What the data of events is, and the names under which it comes."""
REFERRED: Final[set[type[BaseModel]]] = set()
"""Models that only this description refers to, in streams and lines."""
DONE: Final = "[DONE]"
_JSON: Final[dict[str, Any]] = {"type": "string", "contentMediaType": "application/json"}


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


def events(description: str, named: Events) -> Answer:
    """A stream of server-sent events: by what their ``data`` is, as JSON, the names under which it comes."""
    kinds = [
        {"properties": {"event": {"enum": list(names)}, "data": _JSON | {"contentSchema": ref(model)}}}
        for model, names in named.items()
    ]
    place = {"type": "string", "description": "of all but `interrupted`: its place, for `Last-Event-ID`"}
    event = {"id": place, "event": {"type": "string"}, "data": _JSON}
    whole = {"properties": event, "required": ["event", "data"], "anyOf": kinds}
    return _stream(description, whole, "Cache-Control", "X-Accel-Buffering")


def chunks(model: type[BaseModel], description: str) -> Answer:
    """A stream as OpenAI's clients read it: no names, each ``data`` this model, ended by ``[DONE]`` or an error."""
    kinds = [_JSON | {"contentSchema": ref(kind)} for kind in (model, StreamFailure)]
    whole = {"properties": {"data": {"anyOf": [*kinds, {"const": DONE}]}}, "required": ["data"]}
    return _stream(description, whole, "Cache-Control?")


def lines(media_type: str, model: type[BaseModel], description: str, *headers: str) -> Answer:
    """A line of JSON for each of something."""
    return _body(media_type, description, *headers, itemSchema=ref(model))


def text(media_type: str, description: str, *headers: str) -> Answer:
    """Text of another kind."""
    return _body(media_type, description, *headers)


def either(one: Answer, other: Answer) -> Answer:
    """An answer that is the one or the other, by what the request asks for."""
    return one | {"content": one["content"] | other["content"]}


def _stream(description: str, event: dict[str, Any], *headers: str) -> Answer:
    content = {"text/event-stream": {"itemSchema": {"type": "object"} | event}}
    return {"description": description, "content": content, "headers": header_refs(*headers)}


def _body(media_type: str, description: str, *headers: str, **more: Any) -> Answer:
    content = {media_type: {"schema": {"type": "string"}} | more}
    return {"description": description, "content": content, "headers": header_refs(*headers)}
