"""JSON schemas: what can be held to is compiled, all else is refused with the reason; plans of context."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidRequest, ModelError
from workers.engines.conformance import validate
from workers.engines.grammars import check_schema

# llguidance takes it, Python's `re` fails on it: whoever passes it on is found out.
UNKNOWN_TO_RE = r"^\p{Lu}{1,9}$"
SUBSCHEMAS: st.SearchStrategy[Any] = st.sampled_from([True, {"type": "integer"}, {"type": "integer", "minimum": 0}])
OPEN = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.just({"n": {"type": "integer"}}), "required": st.just(["n"])},
    optional={
        "pattern": st.just(UNKNOWN_TO_RE),
        "patternProperties": SUBSCHEMAS.map(lambda schema: {UNKNOWN_TO_RE: schema}),
        "additionalProperties": SUBSCHEMAS,
        "unevaluatedProperties": SUBSCHEMAS,
    },
)


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
        ({"type": "object", "unevaluatedProperties": False}, "schema_unsupported"),
        ({"type": "string", "pattern": "("}, "schema_unsupported"),
        ({"type": "string", "pattern": "(" * 5000 + "a" + ")" * 5000}, "schema_unsupported"),
        ({"type": "nonsense"}, "schema_invalid"),
        ({"const": "\ud800"}, "schema_invalid"),
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


def within(schema: dict[str, Any], depth: int) -> dict[str, Any]:
    """A schema of objects in objects, ``schema`` that of the innermost."""
    for _ in range(depth):
        schema = {
            "type": "object", "properties": {"in": schema}, "required": ["in"], "additionalProperties": False,
        }  # fmt: skip
    return schema


@given(OPEN, st.integers(0, 3))
def test_no_pattern_reaches_python(schema: dict[str, Any], depth: int) -> None:
    whole = within(schema, depth)
    if "unevaluatedProperties" in schema:
        with pytest.raises(InvalidRequest, match="unevaluatedProperties"):
            check_schema(whole)
    else:
        assert check_schema(whole)
    validate(whole, '{"in": ' * depth + '{"n": 1, "AB": 2, "c": 3}' + "}" * depth)
    for broken in ('{"n": "x", "AB": 2}', '{"AB": 2}', "[]", '{"n": 1, "AB": 2'):
        with pytest.raises(ModelError) as caught:
            validate(whole, '{"in": ' * depth + broken + "}" * depth)
        assert caught.value.code == "schema_violated"


def test_a_top_level_pattern_alone_is_left_to_the_mask() -> None:
    validate({"type": "string", "pattern": UNKNOWN_TO_RE}, '"AB"')
    validate({"type": "object", "patternProperties": {UNKNOWN_TO_RE: {"const": 1}}}, '{"AB": 1}')


def test_additional_properties_are_checked_where_no_patterns_name_others() -> None:
    closed = {"type": "object", "properties": {"a": {}}, "additionalProperties": False}
    typed = {"type": "object", "additionalProperties": {"type": "integer"}}
    for schema, sound, broken in ((closed, '{"a": 1}', '{"b": 1}'), (typed, '{"b": 1}', '{"b": "x"}')):
        validate(schema, sound)
        validate(within(schema, 2), f'{{"in": {{"in": {sound}}}}}')
        for whole, text in ((schema, broken), (within(schema, 2), f'{{"in": {{"in": {broken}}}}}')):
            with pytest.raises(ModelError, match=r"b|integer"):
                validate(whole, text)


def test_alternatives_within_alternatives_end() -> None:
    """Each of 40 levels tries the next twice; the mask follows them all at once, a validator one after the other."""

    def holding(level: int, **more: Any) -> dict[str, Any]:
        inner = {"$ref": f"#/$defs/{level}"} if level >= 0 else {"type": "null"}
        return {"type": "object", "properties": {"v": inner}, "required": ["v"], "additionalProperties": False, **more}

    levels = {str(level): {"anyOf": [holding(level - 1), holding(level - 1, title="b")]} for level in range(40)}
    schema = {"anyOf": [{"$ref": "#/$defs/39"}, {"type": "object"}], "$defs": levels}
    assert check_schema(schema)
    with pytest.raises(InvalidRequest, match="steps") as caught:
        validate(schema, '{"v": ' * 40 + '"x"' + "}" * 40)
    assert caught.value.code == "schema_unsupported"


def test_much_json_is_checked_in_full() -> None:
    entry = {
        "type": "object",
        "properties": {"kind": {"enum": [f"kind {number}" for number in range(500)]}, "n": {"type": "integer"}},
        "required": ["kind", "n"],
        "additionalProperties": False,
    }
    schema = {"type": "array", "items": {"anyOf": [{"type": "null"}, entry]}}
    entries: list[dict[str, Any]] = [{"kind": f"kind {number % 500}", "n": number} for number in range(3000)]
    validate(schema, json.dumps(entries))
    with pytest.raises(ModelError):
        validate(schema, json.dumps([*entries, {"kind": "kind 1", "n": "x"}]))


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"$ref": "#"}, "1"),
        ({"type": "array", "items": {"$ref": "#"}}, "[" * 300 + "]" * 300),
        ({"type": "array", "items": {"$ref": "#"}}, "[" * 30_000 + "]" * 30_000),
        ({"type": "number", "multipleOf": 0.1}, "1" + "0" * 400),
        ({"type": "integer"}, "1" * 5000),
    ],
    ids=["loop", "deep", "deeper", "large number", "huge number"],
)
def test_what_cannot_be_checked_ends_as_violated(schema: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelError) as caught:
        validate(schema, text)
    assert caught.value.code == "schema_violated"
