"""JSON schemas: what can be held to is compiled, all else is refused with the reason; plans of context."""

from __future__ import annotations

from typing import Any

import pytest

from services.errors import InvalidRequest, ModelError
from workers.engines.grammars import check_schema, validate


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ({"type": "array", "uniqueItems": True}, "schema_unsupported"),
        ({"if": {"type": "string"}, "then": {"maxLength": 3}}, "schema_unsupported"),
        ({"not": {"type": "string"}}, "schema_unsupported"),
        ({"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}, "schema_unsupported"),
        ({"$ref": "https://example.com/schema"}, "schema_unsupported"),
        ({"$ref": "file:///etc/passwd"}, "schema_unsupported"),
        ({"type": "string", "format": "nonsense"}, "schema_unsupported"),
        (nested(60), "schema_unsupported"),
        ({"enum": ["x" * 70_000]}, "schema_unsupported"),
        ({"type": "nonsense"}, "schema_invalid"),
        ({"const": float("nan")}, "schema_invalid"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_refuses_what_it_cannot_hold_to(schema: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_schema(schema)
    assert caught.value.code == code


def test_compiles_the_common_keywords() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "maxLength": 2000, "description": "free"},
            "b": {"type": "integer", "minimum": 3, "maximum": 7},
            "c": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[A-Z]{2}$"}]},
            "d": {"$ref": "#/$defs/node"},
        },
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"node": node},
    }
    assert check_schema(schema)


def test_the_finished_text_is_validated() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 7}}, "required": ["n"]}
    validate(schema, '{"n": 7}')
    for text in ('{"n": 8}', "{}", '{"n": 7', ""):
        with pytest.raises(ModelError) as caught:
            validate(schema, text)
        assert caught.value.code == "schema_violated"
