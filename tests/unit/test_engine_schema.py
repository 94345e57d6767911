"""JSON schemas: what can be held to is compiled, all else is refused with the reason; plans of context."""

from __future__ import annotations

from typing import Any

import pytest

from services.errors import InvalidRequest, ModelError
from services.gguf_header import GgufHeader
from workers.engines.plan import plan_context
from workers.engines.structured import check_schema, validate


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


def test_plans_fit_memory_and_the_model() -> None:
    keys: dict[str, Any] = {
        "general.architecture": "llama", "llama.block_count": 32, "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8, "llama.embedding_length": 4096, "llama.context_length": 8000,
    }  # fmt: skip
    header = GgufHeader(version=3, metadata=keys, tensors=0, tensor_bytes=0)
    assert header.cache_bytes_per_token() == 128 * 1024
    wide = plan_context(header, 5 * 10**9, tokens=4096, sequences=16, cores=8, gpu=True, free_bytes=None)
    assert (wide.tokens, wide.sequences, wide.cache_bytes, wide.batch) == (4096, 16, 8 * 2**30, 2048)
    tight = plan_context(header, 5 * 10**9, tokens=4096, sequences=16, cores=8, gpu=False, free_bytes=4 * 2**30)
    assert (tight.sequences, tight.batch) == (4, 128)
    none = plan_context(header, 10**12, tokens=10**6, sequences=16, cores=1, gpu=False, free_bytes=0)
    assert (none.tokens, none.sequences, none.batch) == (8000, 1, 32)
