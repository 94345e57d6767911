"""Clause banks: what a line of JSONL may be, and how its clauses become the paragraphs of a text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.errors import DocumentError
from services.settings import Settings
from services.texts import DocumentText
from workers.documents.limits import Limits
from workers.documents.readers import read_bytes
from workers.tasks.segments import clause_spans

LIMITS = Limits.of(Settings(max_text_chars=2000))


def bank(*clauses: Any) -> bytes:
    return "\n".join(json.dumps(clause, ensure_ascii=False) for clause in clauses).encode()


def test_each_clause_is_a_paragraph_with_its_id() -> None:
    long = "One sentence. " * 120
    read = read_bytes(bank({"id": "a", "text": "Short."}, {"text": long, "id": 7, "by": "x"}), LIMITS)
    assert (read.kind, read.labels) == ("jsonl", ("a", "7"))
    assert [read.text[start:end] for start, end in clause_spans(read)] == ["Short.", long.strip()]
    assert DocumentText.from_json(read.to_json()) == read


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"id": "b"}', "`text`"),
        (b'{"id": "b", "text": " "}', "`text`"),
        (b'{"text": "b"}', "`id`"),
        (b'{"id": true, "text": "b"}', "`id`"),
        (b'{"id": "a", "text": "b"}', "line 1 too"),
    ],
)
def test_a_bad_line_is_named(line: bytes, why: str) -> None:
    with pytest.raises(DocumentError, match=r"Line 3 .*") as error:
        read_bytes(b'{"id": "a", "text": "A clause."}\n\n' + line, LIMITS)
    assert error.value.code == "bank_line_invalid"
    assert why in error.value.detail


def test_a_bank_is_held_to_the_limit_of_texts() -> None:
    with pytest.raises(DocumentError) as error:
        read_bytes(bank(*({"id": str(n), "text": "clause " * 20} for n in range(20))), LIMITS)
    assert error.value.code == "document_text_too_long"


@pytest.mark.parametrize("text", ["{not a bank}", '{\n "id": 1\n}', "[1]", '"id": 3'])
def test_other_text_stays_text(text: str) -> None:
    assert read_bytes(text.encode(), LIMITS).kind == "txt"
