"""Tools of a chat: how a model is told of them, the form that its answer is held to, and the call read out of it.

Every model gets one form, ours: a call is the JSON ``{"name": …, "arguments": {…}}``, told in a system message and
enforced while it is written, so that models whose template knows no tools can call them as well.
"""

from __future__ import annotations

import json
from typing import Any, cast

from workers.engines.base import OnText
from workers.engines.conformance import validate
from workers.engines.grammars import COMPACT, check_schema

_INSTRUCTION = (
    "You can call one of these functions:\n{tools}\n"
    'To call one, answer with nothing but JSON: {{"name": the function\'s name, "arguments": {{its arguments}}}}.'
)
_AUTO = " Otherwise answer in words."
# The first character tells a call from an answer in words.
_EITHER = "start: words | call\nwords: /[^{{](.|\\n)*/\ncall: %json {schema}\n"


class Tools:
    """The tools that one request offers. ``choice`` is ``auto``, ``required`` or the name of the one to be called."""

    def __init__(self, tools: list[dict[str, Any]], choice: str) -> None:
        self._auto = choice == "auto"
        self._offered = [tool for tool in tools if choice in ("auto", "required", tool["name"])]
        self._schema = _schema(self._offered)

    def conversation(self, messages: list[dict[str, Any]]) -> list[dict[str, str]]:
        """The messages with the tools told in the first, a system message."""
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in self._offered)
        told = _INSTRUCTION.format(tools=listed) + (_AUTO if self._auto else "")
        plain = plain_messages(messages)
        if plain[0]["role"] == "system":
            return [{"role": "system", "content": f"{plain[0]['content']}\n\n{told}"}, *plain[1:]]
        return [{"role": "system", "content": told}, *plain]

    def form(self) -> dict[str, Any]:
        """What ``Sampling`` holds the answer to. Raises as :func:`check_schema`."""
        if not self._auto:
            return {"json_schema": self._schema}
        check_schema(self._schema)
        return {"grammar": _EITHER.format(schema=json.dumps(self._schema | {"x-guidance": COMPACT}))}

    def shown(self, on_text: OnText) -> OnText:
        """``on_text`` for answers in words alone: a call is delivered when it is complete."""
        words: bool | None = None

        def show(text: str) -> None:
            nonlocal words
            words = not text.startswith("{") if words is None else words
            if words:
                on_text(text)

        return show

    def called(self, text: str, job: str) -> list[dict[str, str]]:
        """The calls in a finished answer, with their arguments as JSON. Raises as :func:`validate`."""
        if not text.startswith("{"):
            return []
        validate(self._schema, text)
        call: dict[str, Any] = json.loads(text)
        arguments = json.dumps(call["arguments"], ensure_ascii=False)
        return [{"id": f"call_{job.removeprefix('job_')}", "name": call["name"], "arguments": arguments}]


def plain_messages(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Messages of roles that every template knows: calls as the model wrote them, their results as the user's."""
    plain: list[dict[str, str]] = []
    for message in messages:
        role, content = str(message["role"]), str(message.get("content") or "")
        if role == "tool":
            role, content = "user", f"The function's result: {content}"
            if plain and plain[-1]["content"].startswith("The function's result: "):
                plain[-1]["content"] += f"\n{content}"
                continue
        for call in cast(list[dict[str, Any]], message.get("tool_calls") or []):
            content += f'{{"name": {json.dumps(call["name"])}, "arguments": {call["arguments"]}}}'
        plain.append({"role": role, "content": content})
    return plain


def _schema(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON schema of a call of one of ``tools``; the parameters of each stand under ``$defs``."""
    calls: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {}
    for tool in tools:
        name = str(tool["name"])
        parameters[name] = _moved(tool.get("parameters") or {"type": "object"}, f"#/$defs/{name}")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": {"$ref": f"#/$defs/{name}"}},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": calls, "$defs": parameters}


def _moved(schema: Any, root: str) -> Any:
    if isinstance(schema, list):
        return [_moved(item, root) for item in cast(list[Any], schema)]
    if not isinstance(schema, dict):
        return schema
    members = cast(dict[str, Any], schema)
    return {
        key: root + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, root)
        for key, value in members.items()
    }
