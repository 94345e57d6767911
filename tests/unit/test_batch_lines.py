"""The lines of a batch's file, however its bytes are cut into blocks, and what is said of wrong ones."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services import batch_lines
from services.batch_lines import Check, LinesInvalid, lines, read_line

CHAT = "/v1/chat/completions"


def row(custom_id: str, model: str = "m", **changes: Any) -> bytes:
    return json.dumps(
        {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": model}} | changes
    ).encode()


def checked(*rows: bytes, most: int | None = None) -> list[tuple[Any, Any]]:
    check = Check(CHAT, ["m", "other"])
    with pytest.raises(LinesInvalid) as refused:
        for line in lines([b"\n".join(rows)]):
            check.take(line)
        check.finish()
    found = refused.value.problem()["errors"]
    return [(error["line"], error["code"]) for error in found[:most]]


@given(st.lists(st.sampled_from([b"", b" \r", b'{"a": 1}', b"x" * 7, "é".encode()])), st.lists(st.integers(0, 40)))
def test_lines_do_not_depend_on_blocks(rows: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(rows)
    places = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    blocks = [data[start:end] for start, end in pairwise(places)]
    found = list(lines(blocks))
    assert [(line.number, line.data) for line in found] == [
        (number, text) for number, text in enumerate(rows, 1) if text.strip()
    ]
    assert all(data[line.start : line.start + line.length] == line.data for line in found)


def test_a_line_without_end_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "LINE_BYTES", 200)
    assert checked(row("first"), b"x" * 201, row("second")) == [(2, "line_too_long")]
    endless, first = lines(b"x" * 100 for _ in range(10**5)), next(lines([b"y\n"]))
    assert (first.data, next(endless).data) == (b"y", None)


def test_all_lines_have_one_known_model() -> None:
    assert checked(row("1"), row("2", "other"), row("3", "none")) == [(2, "mismatched_model"), (3, "model_not_found")]
    assert checked(row("1", body={})) == [(1, "missing_required_parameter")]


def test_more_errors_than_anybody_reads_are_counted() -> None:
    found = checked(*(row("same") for _ in range(150)))
    assert len(found) == batch_lines.MOST_ERRORS + 1
    assert found[-1] == (None, "too_many_errors")


def test_a_file_has_at_most_so_many_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "MOST_LINES", 2)
    assert checked(row("1"), row("2"), row("3")) == [(None, "too_many_requests")]


@pytest.mark.parametrize("text", [b"NaN", b"{", b"\xff", b"[" * 10**5, b"1" * 5000, b""])
def test_what_is_no_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        read_line(text)


def test_a_byte_order_mark_is_no_text() -> None:
    assert read_line(b"\xef\xbb\xbf{}") == {}
