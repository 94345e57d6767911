"""What a request adds to plain sampling, on a tiny model: grammars, tools, penalties, biases, log-probabilities."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator

import pytest

from services.errors import InvalidRequest
from services.models import Catalog
from services.settings import Settings
from tests.tiny_model import CONTEXT, write_tiny_model
from workers.engines.base import Sampling
from workers.engines.grammars import Grammar
from workers.engines.llama import LlamaGeneration
from workers.engines.registry import Engines
from workers.tasks.tool_calls import Tools


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaGeneration]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), context_tokens=CONTEXT, sequences=4)
    catalog = Catalog(settings.data_dir)
    catalog.add(write_tiny_model(settings.data_dir / "tiny.gguf"), name="tiny")
    engines = Engines(settings, catalog, 1)
    engine = engines.generation("tiny")
    assert isinstance(engine, LlamaGeneration)
    yield engine
    engines.close()


def test_text_is_held_to_a_regular_expression(engine: LlamaGeneration) -> None:
    for seed in range(5):
        sampling = Sampling(max_tokens=40, temperature=1.0, seed=seed, regex=r"[A-Z]{2}-[0-9]{4}")
        assert re.fullmatch(r"[A-Z]{2}-[0-9]{4}", engine.generate("deed", sampling).text)


def test_text_is_held_to_a_grammar(engine: LlamaGeneration) -> None:
    grammar = 'start: "law: " place ("," place)?\nplace: "Ohio" | "Peru"'
    for seed in range(5):
        text = engine.generate("deed", Sampling(max_tokens=60, temperature=1.0, seed=seed, grammar=grammar)).text
        assert re.fullmatch("law: (Ohio|Peru)(,(Ohio|Peru))?", text)


def test_a_broken_grammar_is_refused(engine: LlamaGeneration) -> None:
    for bad in (Sampling(grammar="start: ("), Sampling(regex="(")):
        with pytest.raises(InvalidRequest) as caught:
            engine.generate("deed", bad)
        assert caught.value.code == "grammar_invalid"


def test_finished_json_is_checked_by_the_thread_that_asked(
    engine: LlamaGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client's schema makes of the check can hold up that thread alone, never the engine's."""
    checked_by: list[threading.Thread] = []

    def check(grammar: Grammar, text: str) -> None:
        checked_by.append(threading.current_thread())
        grammar_check(grammar, text)

    grammar_check = Grammar.validate
    monkeypatch.setattr(Grammar, "validate", check)
    for schema in (
        {"type": "string", "pattern": "^a{3}$"},
        {"type": "object", "patternProperties": {"^[xy]$": {"const": 1}}, "additionalProperties": False},
    ):
        assert engine.generate("deed", Sampling(max_tokens=60, json_schema=schema)).finish_reason == "stop"
    assert checked_by == [threading.current_thread()] * 2


@pytest.mark.parametrize("choice", ["required", "clock", "auto"])
def test_tools_are_called_in_their_form(engine: LlamaGeneration, choice: str) -> None:
    parameters = {
        "type": "object",
        "properties": {"n": {"enum": [1, 2]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    closed = {"type": "object", "additionalProperties": False}
    tools = Tools([{"name": "add", "parameters": parameters}, {"name": "clock", "parameters": closed}], choice)
    called: set[str] = set()
    for seed in range(12):
        result = engine.generate("sum", Sampling(max_tokens=120, temperature=1.0, seed=seed, **tools.form()))
        if not result.text.startswith("{"):
            called.add("words")
        elif result.finish_reason == "stop":
            call = tools.called(result.text, "job_1")[0]
            assert json.loads(call["arguments"]) in ([{}] if call["name"] == "clock" else [{"n": 1}, {"n": 2}])
            called.add(call["name"])
    allowed = {"required": {"add", "clock"}, "clock": {"clock"}, "auto": {"add", "clock", "words"}}
    assert called
    assert called <= allowed[choice]


def test_a_bias_decides_and_an_unknown_token_is_refused(engine: LlamaGeneration) -> None:
    alpha = engine.tokenize(" alpha")[-1]
    result = engine.generate("rent", Sampling(max_tokens=5, logit_bias={alpha: 100.0}))
    assert result.text == " alpha" * 5
    penalised = engine.generate(
        "rent", Sampling(max_tokens=5, logit_bias={alpha: 100.0}, presence_penalty=2.0, frequency_penalty=2.0)
    )
    assert penalised.text == result.text, "a bias of 100 outweighs a few penalties"
    with pytest.raises(InvalidRequest, match="no token 999999"):
        engine.generate("rent", Sampling(max_tokens=5, logit_bias={999_999: 1.0}))


def test_a_repetition_penalty_breaks_a_loop(engine: LlamaGeneration) -> None:
    alpha = engine.tokenize(" alpha")[-1]
    looping = Sampling(max_tokens=12, logit_bias={alpha: 40.0})
    assert engine.generate("rent", looping).text.count(" alpha") == 12
    broken = Sampling(max_tokens=12, logit_bias={alpha: 40.0}, frequency_penalty=2.0, presence_penalty=2.0)
    assert engine.generate("rent", broken).text.count(" alpha") < 12


def test_logprobs_come_with_each_token(engine: LlamaGeneration) -> None:
    plain = engine.generate("rent", Sampling(max_tokens=10))
    assert plain.logprobs is None
    result = engine.generate("rent", Sampling(max_tokens=10, logprobs=3))
    assert (result.text, result.tokens_out) == (plain.text, plain.tokens_out)
    assert result.logprobs is not None
    assert len(result.logprobs) == result.tokens_out
    assert b"".join(entry.piece for entry in result.logprobs).decode("utf-8", "replace") == result.text
    for entry in result.logprobs:
        assert entry.top[0].token == entry.token, "greedy takes the likeliest"
        assert [other.logprob for other in entry.top] == sorted((other.logprob for other in entry.top), reverse=True)
        assert entry.logprob <= 0
