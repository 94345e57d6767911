"""Reads a clause bank, one JSON object ``{"id", "text"}`` a line: one paragraph a clause, named by its id."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from services.errors import DocumentError
from workers.documents.assembly import Draft
from workers.documents.decoding import decode, guess_note
from workers.documents.limits import Limits, damaged

MAX_ID = 200
_BETWEEN = "\n\n"
_START = re.compile(r'\{[ \t]*"(?:id|text)"[ \t]*:')


def is_bank(head: str) -> bool:
    """Whether a text begins as the first line of a clause bank."""
    return bool(_START.match(head.lstrip("\ufeff \t\r\n")))


def read_jsonl(data: bytes, limits: Limits) -> Draft:
    """Every clause as it stands, in order; other members of a line are left out.

    Raises ``DocumentError`` ``bank_line_invalid``, which names the first line that is no clause.
    """
    decoded = decode(data)
    if decoded is None:
        raise damaged("The clause bank holds bytes that are not text.")
    labels: dict[str, int] = {}
    texts: list[str] = []
    spans: list[tuple[int, int]] = []
    at = 0
    for number, line in enumerate(decoded.text.split("\n"), 1):
        if not line.strip():
            continue
        label, text = _clause(line, number)
        if label in labels:
            raise _invalid(number, f"its id stands in line {labels[label]} too")
        labels[label] = number
        texts.append(text)
        spans.append((at, at + len(text)))
        at += len(text) + len(_BETWEEN)
        limits.check_chars(at)
    return Draft("jsonl", (_BETWEEN.join(texts),), guess_note(decoded), tuple(spans), tuple(labels))


def _clause(line: str, number: int) -> tuple[str, str]:
    try:
        raw: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise _invalid(number, "it is not JSON") from None
    members = cast(dict[str, Any], raw) if isinstance(raw, dict) else {}
    label, text = members.get("id"), members.get("text")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not isinstance(label, str) or not 0 < len(label) <= MAX_ID:
        raise _invalid(number, f"its `id` is no text of 1 to {MAX_ID} characters")
    if not isinstance(text, str) or not text.strip():
        raise _invalid(number, "its `text` is missing or empty")
    return label, text.strip()


def _invalid(number: int, why: str) -> DocumentError:
    return DocumentError(
        f'Line {number} of the clause bank cannot be used: {why}. Each line is {{"id": "…", "text": "…"}}.',
        code="bank_line_invalid",
    )
