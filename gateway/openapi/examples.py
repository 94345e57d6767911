"""Puts requests, and what was answered to them, into the description as examples of the same name."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, Final

from gateway.openapi.example_ids import EXAMPLE_IDS
from gateway.openapi.requests import Request, requests_of

FOLDER = "answers"
SELDOM: Final[dict[str, dict[str, Any]]] = {
    "get_readiness": {
        "away": {"status": 503, "media_type": "application/json", "body": {"ready": False}},
    },
    "upload_document": {
        "long": {
            "status": 202,
            "media_type": "application/json",
            "body": {
                "id": EXAMPLE_IDS["document_id"],
                "name": "scan.pdf",
                "bytes": 48_112_640,
                "matter": "M-2041",
                "created_at": "2026-11-30T10:38:26.339698Z",
                "kind": None,
                "pages": None,
                "chars": None,
                "notes": None,
            },
        },
    },
}
"""What a stack in order does not answer to a small request, written by hand."""


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
    for title, answer in SELDOM.get(name, {}).items():
        content = operation["responses"][str(answer["status"])]["content"][answer["media_type"]]
        content["examples"] = {title: {"summary": "Where it takes longer or fails", "value": answer["body"]}}


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
