"""Requests are JSON: what Python would take for a number, a truth value or a text is refused unless it is one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.input_schemas import DuplicatesInput
from gateway.run_schemas import RunRequest
from services.job_inputs import ChatMessage, GenerateInput
from services.openai_requests import ChatRequest, EmbeddingsRequest

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("kind", "body", "member", "good", "bad"),
    [
        (ChatRequest, CHAT, "n", [1, 2.0], [True, "1", [1], 1.5]),
        (ChatRequest, CHAT, "temperature", [0, 0.5, None], [False, "0.5"]),
        (ChatRequest, CHAT, "stream", [True, False], [1, 0, "true", None]),
        (ChatRequest, CHAT, "stop", ["x", ["x", "y"], None], [1, [1], True]),
        (
            EmbeddingsRequest,
            {"model": "m"},
            "input",
            ["7", ["7"], [7], [[7]], [7.0]],
            [7, True, [True], [[True]], [["7"]]],
        ),
        (GenerateInput, {"prompt": "x"}, "logit_bias", [{"7": 1}, {}], [{"7": True}, {"7": "1"}, [7]]),
        (DuplicatesInput, {}, "threshold", [0.5, 1], [True, "0.5"]),
        (RunRequest, {}, "open", [True], [1, "yes"]),
    ],
)
def test_a_member_is_what_json_says(kind: Any, body: Any, member: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert getattr(kind.model_validate(body | {member: value}), member) == value
    for value in bad:
        with pytest.raises(ValidationError):
            kind.model_validate(body | {member: value})


def test_null_and_times_are_what_the_member_makes_of_them() -> None:
    assert ChatRequest.model_validate(CHAT | {"n": None}).n == 1
    assert (
        str(RunRequest.model_validate({"not_before": "2030-01-31T08:00:00Z"}).not_before) == "2030-01-31 08:00:00+00:00"
    )


def test_a_call_has_its_arguments_as_a_text_of_json() -> None:
    call = {"id": "c", "name": "f", "arguments": '{"a": 1}'}
    message = ChatMessage.model_validate({"role": "assistant", "tool_calls": [call]})
    assert message.model_dump()["tool_calls"][0]["arguments"] == '{"a": 1}'
