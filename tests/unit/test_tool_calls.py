"""Tools of a chat: told to any model, their calls held to a schema and read back, whoever they are written by."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from services.errors import InvalidRequest, ModelError
from services.job_inputs import GenerateInput, checked_input
from services.openai_requests import ChatRequest
from workers.engines.base import Sampling
from workers.engines.grammars import grammar_of
from workers.tasks.tool_calls import Tools, plain_messages

SEARCH: dict[str, Any] = {
    "name": "search",
    "description": "Finds clauses",
    "parameters": {
        "type": "object",
        "properties": {"about": {"$ref": "#/$defs/topic"}, "most": {"type": "integer"}},
        "required": ["about"],
        "additionalProperties": False,
        "$defs": {"topic": {"enum": ["rent", "term"]}},
    },
}
CLOCK: dict[str, Any] = {"name": "clock"}
ASKED = [{"role": "user", "content": "What is the rent?"}]
CALL = '{"name": "search", "arguments": {"about": "rent"}}'


def test_tools_are_told_in_the_system_message() -> None:
    told = Tools([SEARCH, CLOCK], "auto").conversation([{"role": "system", "content": "Be brief."}, *ASKED])
    assert [message["role"] for message in told] == ["system", "user"]
    assert told[0]["content"].startswith("Be brief.\n\n")
    assert "Finds clauses" in told[0]["content"]
    assert "in words" in told[0]["content"]
    named = Tools([SEARCH, CLOCK], "clock").conversation(ASKED)
    assert "clock" in named[0]["content"]
    assert "search" not in named[0]["content"]
    assert named[1:] == ASKED


def test_calls_and_their_results_become_messages_that_every_template_knows() -> None:
    calls = [{"id": "1", "name": "search", "arguments": '{"about": "rent"}'}]
    found = plain_messages(
        [
            *ASKED,
            {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "content": "12,000"},
            {"role": "tool", "content": "a year"},
        ]
    )
    assert [message["role"] for message in found] == ["user", "assistant", "user"]
    assert found[1]["content"] == CALL
    assert found[2]["content"] == "The function's result: 12,000\nThe function's result: a year"


def test_the_form_admits_calls_of_the_chosen_tools_alone() -> None:
    schema = Tools([SEARCH, CLOCK], "required").form()["json_schema"]
    jsonschema.validate(json.loads(CALL), schema)
    jsonschema.validate({"name": "clock", "arguments": {}}, schema)
    for wrong in ({"about": "weather"}, {}, {"about": "rent", "more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"name": "search", "arguments": wrong}, schema)
    named = Tools([SEARCH, CLOCK], "clock").form()["json_schema"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(CALL), named)
    assert grammar_of(Sampling(json_schema=schema))
    assert grammar_of(Sampling(**Tools([SEARCH, CLOCK], "auto").form()))


def test_a_keyword_that_cannot_be_held_to_is_refused_by_name() -> None:
    tool = {"name": "a", "parameters": {"type": "object", "dependentRequired": {"x": ["y"]}}}
    with pytest.raises(InvalidRequest, match="dependentRequired") as caught:
        Tools([tool], "auto").form()
    assert caught.value.code == "schema_unsupported"


def test_a_call_is_read_and_words_are_not_one() -> None:
    tools = Tools([SEARCH], "auto")
    calls = tools.called(CALL, "job_7")
    assert calls == [{"id": "call_7", "name": "search", "arguments": '{"about": "rent"}'}]
    assert tools.called("The rent is due.", "job_7") == []
    with pytest.raises(ModelError):
        tools.called('{"name": "search", "arguments": {"about": "weather"}}', "job_7")


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [(["The", " {rent}"], "The {rent}"), (['{"name', '": "search"', "…"], "")],
    ids=["words", "call"],
)
def test_words_are_streamed_and_calls_are_not(pieces: list[str], shown: str) -> None:
    found: list[str] = []
    show = Tools([SEARCH], "auto").shown(found.append)
    for piece in pieces:
        show(piece)
    assert "".join(found) == shown


def test_openais_request_becomes_the_input_of_a_job() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"about": "rent"}'}}
    request = ChatRequest.model_validate(
        {
            "model": "m",
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "12,000"}]},
            ],
            "tools": [{"type": "function", "function": SEARCH | {"strict": True}}],
            "tool_choice": {"type": "function", "function": {"name": "search"}},
            "logprobs": True,
            "logit_bias": {"7": -100},
        }
    )
    body = checked_input(GenerateInput, request.job_inputs()[0])
    called = [{"id": "c1", "name": "search", "arguments": '{"about": "rent"}'}]
    assert body["messages"][1] == {"role": "assistant", "content": "", "tool_calls": called}
    assert body["messages"][2] == {"role": "tool", "content": "12,000"}
    assert (body["tools"], body["tool_choice"], body["logprobs"]) == ([SEARCH], "search", 0)
    assert body["logit_bias"] == {"7": -100.0}
    any_json = ChatRequest.model_validate(
        {"model": "m", "messages": ASKED, "response_format": {"type": "json_object"}}
    ).job_inputs()[0]
    assert any_json["json_schema"] == {"type": "object"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"tools": [SEARCH, SEARCH]},
        {"tools": [SEARCH], "tool_choice": "other"},
        {"tool_choice": "required"},
        {"tools": [SEARCH], "json_schema": {}},
        {"tools": [SEARCH], "stop": "x"},
        {"tools": [{"name": "no blanks"}]},
        {"grammar": "start: /x/", "regex": "x"},
        {"regex": "x" * 70_000},
        {"logit_bias": {str(token): 1 for token in range(10_000)}},
        {"logit_bias": {"-1": 1}},
        {"logit_bias": {"1": float("nan")}},
        {"temperature": float("nan")},
        {"logprobs": 21},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "name": "a", "arguments": "no JSON"}]}]},
    ],
    ids=lambda wrong: str(wrong)[:60],
)
def test_inputs_that_cannot_be_are_refused_before_the_queue(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked_input(GenerateInput, {"messages": ASKED} | wrong)
    assert caught.value.code == "input_invalid"
