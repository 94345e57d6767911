"""The fake engine keeps the promises that callers build on, and says what it is."""

from __future__ import annotations

import json
import logging
from typing import Any

import jsonschema
import numpy as np
import pytest

from services.errors import InvalidRequest, Transient
from workers.engines.base import Sampling, WorkCancelled
from workers.engines.fake import BANNER, FakeEmbeddings, FakeGeneration


def test_streams_deterministic_text_that_says_it_is_fake(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        engine = FakeGeneration()
    assert "FAKE" in caplog.text
    pieces: list[str] = []
    first = engine.generate("hello there", Sampling(max_tokens=100), on_text=pieces.append)
    assert first == engine.generate("hello there", Sampling(max_tokens=100))
    assert first.text.startswith(BANNER)
    assert "".join(pieces) == first.text
    assert len(pieces) > 10
    assert (first.tokens_in, first.finish_reason) == (2, "stop")
    assert first.text != engine.generate("hello you", Sampling(max_tokens=100)).text


def test_honours_length_stop_and_cancel() -> None:
    engine = FakeGeneration()
    short = engine.generate("a", Sampling(max_tokens=3))
    assert (short.tokens_out, short.finish_reason) == (3, "length")
    stopped = engine.generate("a", Sampling(max_tokens=100, stop=("MODEL",)))
    assert stopped.text == "[FAKE ENGINE, NO "
    assert stopped.finish_reason == "stop"
    shown: list[str] = []
    cancelled = engine.generate("a", Sampling(max_tokens=100), on_text=shown.append, cancelled=lambda: len(shown) >= 4)
    assert cancelled.finish_reason == "cancelled"
    assert len(shown) == 4


def test_refuses_what_does_not_fit() -> None:
    engine = FakeGeneration(context_tokens=20)
    with pytest.raises(InvalidRequest) as caught:
        engine.generate("one two three", Sampling(max_tokens=18))
    assert caught.value.code == "context_exceeded"
    engine.close()
    with pytest.raises(Transient):
        engine.generate("one", Sampling(max_tokens=2))


@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "object",
            "properties": {
                "law": {"type": ["string", "null"], "minLength": 8},
                "kind": {"enum": ["nda", "lease"]},
                "n": {"type": "integer", "minimum": 3},
                "parties": {"type": "array", "items": {"$ref": "#/$defs/party"}, "minItems": 2},
            },
            "required": ["law", "kind", "n", "parties"],
            "additionalProperties": False,
            "$defs": {"party": {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}},
        },
        {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]},
    ],
)
def test_json_satisfies_the_schema(schema: dict[str, Any]) -> None:
    text = FakeGeneration().generate("x", Sampling(max_tokens=200, json_schema=schema)).text
    jsonschema.validate(json.loads(text), schema)


def test_vectors_are_deterministic_and_of_length_one() -> None:
    engine = FakeEmbeddings()
    found = engine.embed(["one", "two words", "one"])
    assert found.vectors.shape == (3, 384)
    assert found.vectors.dtype == np.float32
    assert found.tokens == [1, 2, 1]
    assert np.array_equal(found.vectors[0], found.vectors[2])
    assert not np.array_equal(found.vectors[0], found.vectors[1])
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1.0, rtol=1e-5)
    with pytest.raises(InvalidRequest, match="Input 1"):
        engine.embed(["fine", "w " * 600])
    with pytest.raises(WorkCancelled):
        engine.embed(["x"], cancelled=lambda: True)
