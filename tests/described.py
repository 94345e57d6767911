"""The API's description as tests use it: its operations, their examples as requests, and whether an answer fits it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema_rs

from gateway.openapi.example_ids import EXAMPLE_IDS

# Names and not ids: they stand in texts too, and are the same everywhere.
NAMES = ("playbook", "matter", "kind")

# Headers of the connection and the message as such, which a server writes by itself.
OF_HTTP = frozenset({"connection", "content-length", "content-type", "date", "server", "transfer-encoding"})


@dataclass(frozen=True)
class Operation:
    """One operation; ``about`` is what FastAPI and we say of it, its answers among that and no references to them."""

    method: str
    path: str
    about: dict[str, Any]

    @property
    def id(self) -> str:
        return self.about["operationId"]

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """Those of its own."""
        return [one for one in self.about["parameters"] if "$ref" not in one]

    def examples(self) -> list[str]:
        """The names of its examples, ``plain`` where it has one request only."""
        found: dict[str, None] = {}
        for parameter in self.parameters:
            found |= dict.fromkeys(parameter.get("examples", ()))
        for content in self.about.get("requestBody", {}).get("content", {}).values():
            found |= dict.fromkeys(content.get("examples", ()))
        return list(found) or ["plain"]

    def answered(self, example: str) -> tuple[str, str] | None:
        """Status and media type under which the example's answer stands; those without a body stand nowhere."""
        for status, answer in self.about["responses"].items():
            for media_type, content in answer.get("content", {}).items():
                if media_type != "application/problem+json" and example in content.get("examples", ()):
                    return status, media_type
        return None

    def used_up(self, example: str) -> str | None:
        """Which thing a request changes or removes: what its path names last."""
        in_path = [self._value(one, example) for one in self.parameters if one["in"] == "path"]
        return _name_of(in_path[-1]) if in_path else None

    @staticmethod
    def _value(parameter: dict[str, Any], example: str) -> Any:
        return parameter.get("examples", {}).get(example, {}).get("value", parameter.get("example"))

    def request(self, example: str, ids: dict[str, str]) -> dict[str, Any]:
        """What ``httpx`` is told to send the example, with these ids in the place of the description's."""
        sends: dict[str, Any] = {"method": self.method, "url": self.path, "params": {}, "headers": {}}
        for parameter in self.parameters:
            value = self._value(parameter, example)
            if value is None:
                continue
            if parameter["in"] == "path":
                place = f"{{{parameter['name']}}}"
                sends["url"] = sends["url"].replace(place, quote(ids[_name_of(value)], safe=""))
            elif parameter["in"] == "query":
                sends["params"][parameter["name"]] = value
            else:
                sends["headers"][parameter["name"]] = value
        for media_type, content in self.about.get("requestBody", {}).get("content", {}).items():
            if example in content.get("examples", ()):
                sends |= _body(media_type, content["examples"][example]["value"], ids, sends["headers"])
        return sends


@dataclass
class Description:
    """An OpenAPI document."""

    document: dict[str, Any]
    _validators: dict[str, Any] = field(default_factory=dict[str, Any])

    @cached_property
    def _registry(self) -> jsonschema_rs.Registry:
        return jsonschema_rs.Registry([("urn:api", _strict(self.document))])

    def operations(self) -> Iterator[Operation]:
        for path, item in self.document["paths"].items():
            for method, about in item.items():
                answers = {status: self.component(answer) for status, answer in about["responses"].items()}
                yield Operation(method.upper(), path, about | {"responses": answers})

    def errors(self, pointer: str, value: Any) -> list[str]:
        """What in ``value`` does not fit the schema at a JSON pointer, members that no schema names among it."""
        validator = self._validators.get(pointer)
        if validator is None:
            schema = {"$ref": f"urn:api{pointer}"}
            validator = jsonschema_rs.Draft202012Validator(schema, registry=self._registry, validate_formats=True)
            self._validators[pointer] = validator
        return [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(value)]

    def misfits(self, operation: Operation, answer: httpx.Response) -> list[str]:
        """What of an answer is not documented: its status, its media type, its headers, its body."""
        status = str(answer.status_code)
        documented = operation.about["responses"].get(status)
        if documented is None:
            return [f"status {status} is not documented: {answer.text[:300]}"]
        wrong = self._header_errors(documented.get("headers", {}), answer.headers)
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        if not media_type:
            return wrong + (["a body is documented"] if documented.get("content") else [])
        if media_type not in documented.get("content", {}):
            return [*wrong, f"{media_type} is not documented for {status}"]
        place = self.pointer(operation, "responses", status, "content", media_type)
        return wrong + self.body_errors(place, documented["content"][media_type], media_type, answer.text)

    def _header_errors(self, documented: dict[str, Any], sent: httpx.Headers) -> list[str]:
        """Headers that are always sent and are not there, and headers of ours that are not documented."""
        always = [name for name, header in documented.items() if self.component(header).get("required")]
        known = {name.lower() for name in documented} | OF_HTTP
        missing = [f"header {name} is missing" for name in always if name not in sent]
        return missing + [f"header {name} is not documented" for name in sent if name not in known]

    def body_errors(self, place: str, content: dict[str, Any], media_type: str, text: str) -> list[str]:
        """What in a body does not fit: as JSON, line by line, or event by event."""
        if media_type.endswith("json") and "itemSchema" not in content:
            return self.errors(f"{place}/schema", json.loads(text))
        if media_type == "text/event-stream":
            return [error for event in _events(text) for error in self._event_errors(place, content, event)]
        if "itemSchema" in content:
            place, values = f"{place}/itemSchema", [json.loads(line) for line in text.splitlines()]
            return [error for value in values for error in self.errors(place, value)]
        return []

    def _event_errors(self, place: str, content: dict[str, Any], event: dict[str, Any]) -> list[str]:
        """What of an event does not fit; where there are events of its name, what of its data."""
        wrong = self.errors(f"{place}/itemSchema", event)
        named = [
            f"{place}/itemSchema/anyOf/{number}/properties/data"
            for number, kind in enumerate(content["itemSchema"].get("anyOf", ()))
            if event.get("event") in kind["properties"]["event"]["enum"]
        ]
        if wrong and named:
            wrong = min((self.errors(where, event["data"]) for where in named), key=len)
        return [f"{error} (in an event {event.get('event')})" for error in wrong]

    def pointer(self, operation: Operation, *parts: str) -> str:
        """The JSON pointer of a part of an operation, or of what it refers to."""
        names = ("paths", operation.path, operation.method.lower(), *parts)
        if parts[0] == "responses":
            answer = self.document["paths"][operation.path][operation.method.lower()]["responses"][parts[1]]
            names = (*answer["$ref"].split("/")[1:], *parts[2:]) if "$ref" in answer else names
        return "#/" + "/".join(quote(name.replace("~", "~0").replace("/", "~1"), safe="~") for name in names)

    def component(self, item: dict[str, Any]) -> dict[str, Any]:
        """An item, or what it refers to."""
        if "$ref" not in item:
            return item
        _, _, kind, name = item["$ref"].split("/")
        return self.document["components"][kind][name]


def _events(text: str) -> Iterator[dict[str, Any]]:
    """The whole events of a stream, their data as what it stands for; without comments, which keep it open."""
    for block in text.split("\n\n")[:-1]:
        event: dict[str, Any] = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if event:
            data = event["data"]
            yield event | {"data": json.loads(data) if data.startswith("{") else data}


def _name_of(value: str) -> str:
    return next(name for name, known in EXAMPLE_IDS.items() if known == value)


def _filled(text: str, ids: dict[str, str]) -> str:
    for name, known in EXAMPLE_IDS.items():
        if name not in NAMES:
            text = text.replace(known, ids[name])
    return text


def _body(media_type: str, value: Any, ids: dict[str, str], headers: dict[str, str]) -> dict[str, Any]:
    if media_type == "multipart/form-data":
        texts = {name: text for name, text in value.items() if name != "file"}
        return {"files": {"file": ("file", _filled(value["file"], ids).encode())}, "data": texts}
    headers["Content-Type"] = media_type
    return {"content": _filled(value if isinstance(value, str) else json.dumps(value), ids).encode()}


def _strict(schema: Any) -> Any:
    """The document where every object of an answer has only the members that its schema names."""
    if isinstance(schema, dict):
        # A part of an ``allOf`` sees what the other parts name.
        members = {name: value if name == "allOf" else _strict(value) for name, value in schema.items()}
        if "itemSchema" in members:
            members["itemSchema"] = _opened(members["itemSchema"])
        if "properties" in members and "type" in members and not members.keys() & {"additionalProperties", "allOf"}:
            members["additionalProperties"] = False
        return members
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    return schema


def _opened(schema: Any) -> Any:
    """What events are, where their data stands as the JSON that it is: words about a text's content bind nothing."""
    if isinstance(schema, dict):
        if schema.get("contentMediaType") == "application/json":
            return schema.get("contentSchema", {})
        return {name: _opened(value) for name, value in schema.items()}
    return [_opened(item) for item in schema] if isinstance(schema, list) else schema
