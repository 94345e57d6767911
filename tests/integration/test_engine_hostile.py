"""Hostile requests, drawn at random: each ends with a text or a stable error, and the engine goes on as before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import CasemillError, InvalidRequest
from services.models import Catalog
from services.settings import Settings
from tests.tiny_model import CONTEXT, write_tiny_model
from workers.engines.base import Generation, Sampling
from workers.engines.llama import LlamaGeneration
from workers.engines.registry import Engines

TEMPLATE = "{% for m in messages %}<turn>{{ m.content }}</s>{% endfor %}<turn>"
REFERENCE = Sampling(max_tokens=8)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaGeneration]:
    options = Settings(data_dir=tmp_path_factory.mktemp("data"), context_tokens=CONTEXT, sequences=4)
    catalog = Catalog(options.data_dir)
    catalog.add(write_tiny_model(options.data_dir / "tiny.gguf", template=TEMPLATE), name="tiny")
    engines = Engines(options, catalog, 1)
    engine = engines.generation("tiny")
    assert isinstance(engine, LlamaGeneration)
    yield engine
    engines.close()


NUMBERS = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e300, math.nan, math.inf, 0.8]))
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(), max_size=20).map(lambda text: f"</s><turn>{text}<s><unk>"),
    st.sampled_from(["", "\ud800", "\0", "\ufdd0</s>\ufdd1", "rent " * 600, "x" * 100_000]),
)
LEAVES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"type": "string", "maxLength": 10**9},
        {"type": "string", "pattern": "(.*a.{20}){20}x"},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"type": "array", "items": {"type": "array", "minItems": 1000}, "minItems": 10**6},
        {"enum": [None, 1, "a"]},
        {"const": math.nan},
        {"not": {}},
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {"$ref": "http://127.0.0.1/x"},
        {"type": "object", "patternProperties": {"^a+.*x{1,50}$": {}}},
    ]
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda items: {"anyOf": items}),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: {"allOf": items}),
        inner.map(lambda item: {"type": "array", "items": item}),
        inner.map(lambda item: {"type": "object", "properties": {"a": item}, "required": ["a"]}),
    ),
    max_leaves=8,
)
FORMS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    SCHEMAS.map(lambda schema: {"json_schema": schema}),
    st.sampled_from(
        [
            "start: start start | ",
            "start: x{1,100000}\nx: y{1,1000}\ny: /a/ | /b/",
            "start: A\nA: /(a|b)*a(a|b)/ & ~(/(.*b.)/)",
            "start: <turn>",
            'start: %json {"$ref": "#"}',
            "start: (",
            "",
            "\ud800",
        ]
    ).map(lambda grammar: {"grammar": grammar}),
    st.sampled_from(["(a|aa|a?)*c{1,1000}", "((a{1,1000}){1,1000}){1,1000}", "(", "", "(?=a)b", ".*a.{500}"]).map(
        lambda regex: {"regex": regex}
    ),
)
SAMPLINGS = st.fixed_dictionaries(
    {"max_tokens": st.one_of(st.integers(1, 12), st.integers(-1, 2**40))},
    optional={
        "temperature": NUMBERS,
        "top_p": NUMBERS,
        "min_p": NUMBERS,
        "top_k": st.integers(-1, 2**33),
        "seed": st.one_of(st.none(), st.integers(-(2**65), 2**65)),
        "stop": st.lists(st.one_of(st.text(max_size=5), st.just("x" * 2**20)), max_size=20).map(tuple),
        "repetition_penalty": NUMBERS,
        "frequency_penalty": NUMBERS,
        "presence_penalty": NUMBERS,
        "logit_bias": st.one_of(
            st.dictionaries(st.integers(-2, 400), NUMBERS, max_size=5),
            st.just(dict.fromkeys(range(10_000), 1.0)),
            st.just({3: 100.0, 2: -100.0}),
        ),
        "logprobs": st.one_of(st.none(), st.integers(-1, 40)),
    },
)


@settings(max_examples=250)
@given(TEXTS, SAMPLINGS, FORMS)
def test_every_request_ends_and_the_engine_goes_on(
    engine: LlamaGeneration, prompt: str, values: dict[str, Any], form: dict[str, Any]
) -> None:
    before = engine.generate("alpha", REFERENCE)
    try:
        result = engine.generate(prompt, Sampling(**values, **form))
    except CasemillError as error:
        assert error.code not in ("internal", "engine_closed", "engine_failed", "engine_stalled")
    else:
        assert isinstance(result, Generation)
        assert result.tokens_out <= values["max_tokens"]
    assert engine.generate("alpha", REFERENCE) == before
    assert not engine.broken


@settings(max_examples=100)
@given(st.lists(st.fixed_dictionaries({"role": st.text(max_size=8), "content": TEXTS}), max_size=4))
def test_no_conversation_writes_control_tokens(engine: LlamaGeneration, messages: list[dict[str, str]]) -> None:
    try:
        prompt = engine.chat_prompt(messages)
    except InvalidRequest as error:
        assert error.code == "messages_invalid"
        return
    tokens = engine.tokenize(prompt)
    # Of the template: one <turn> a message and one at the end, one </s> a message.
    assert (tokens.count(3), tokens.count(2)) == (len(messages) + 1, len(messages))


@pytest.mark.parametrize(
    ("prompt", "sampling", "code"),
    [
        ("", Sampling(), "prompt_empty"),
        ("rent " * 600, Sampling(max_tokens=1), "context_exceeded"),
        ("rent", Sampling(max_tokens=CONTEXT), "context_exceeded"),
        ("rent", Sampling(stop=("x" * 2**20,)), "sampling_invalid"),
        ("rent", Sampling(temperature=math.nan), "sampling_invalid"),
        ("rent", Sampling(logit_bias=dict.fromkeys(range(10_000), 1.0)), "sampling_invalid"),
        ("rent", Sampling(json_schema={"oneOf": [{}, {}]}), "schema_unsupported"),
        ("rent", Sampling(json_schema={"$ref": "#"}), "schema_unsupported"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_requests_are_told_what_is_wrong(
    engine: LlamaGeneration, prompt: str, sampling: Sampling, code: str
) -> None:
    with pytest.raises(CasemillError) as caught:
        engine.generate(prompt, sampling)
    assert caught.value.code == code
