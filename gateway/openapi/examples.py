"""Puts requests, and what was answered to them, into the description as examples of the same name."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from gateway.openapi.requests import Request, requests_of

FOLDER = "answers"


def add_examples(operation: dict[str, Any]) -> None:
    """Add the examples of an operation: its parameters, its body, and the answer to each."""
    name = operation["operationId"]
    for title, request in requests_of(name).items():
        _add_request(operation, title, request)
    for title, answer in answers().get(name, {}).items():
        content = operation["responses"][str(answer["status"])].get("content", {})
        if answer["media_type"] in content:
            value = {"summary": requests_of(name)[title].summary, "value": answer["body"]}
            content[answer["media_type"]].setdefault("examples", {})[title] = value


@cache
def answers() -> dict[str, dict[str, Any]]:
    """What was answered, by operation and name of the request: ``status``, ``media_type`` and ``body``."""
    folder = files("gateway") / "openapi" / FOLDER
    found: dict[str, dict[str, Any]] = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        found |= json.loads(file.read_text(encoding="utf-8"))
    return found


def _add_request(operation: dict[str, Any], title: str, request: Request) -> None:
    if request.body is not None:
        content = operation["requestBody"]["content"][request.media_type]
        content.setdefault("examples", {})[title] = {"summary": request.summary, "value": request.body}
    for parameter in operation.get("parameters", ()):
        if parameter.get("name") in request.parameters:
            parameter.pop("example", None)
            value = {"summary": request.summary, "value": request.parameters[parameter["name"]]}
            parameter.setdefault("examples", {})[title] = value
