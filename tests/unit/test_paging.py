"""Cursors: what they name is found again, what was made up is refused, and nothing else comes of it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidRequest
from services.paging import MOST_SCORE, Page, Place, page_of, read_cursor, write_cursor

NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200)
SCORES = st.floats(-MOST_SCORE, MOST_SCORE)


@given(SCORES, NAMES)
def test_a_cursor_names_its_place(score: float, name: str) -> None:
    cursor = write_cursor("jobs", Place(score, name))
    assert read_cursor("jobs", cursor) == Place(score, name)
    with pytest.raises(InvalidRequest) as refused:
        read_cursor("runs", cursor)
    assert refused.value.code == "cursor_invalid"


def made_up(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")


HOSTILE = [
    "jobs nan a",
    "jobs inf a",
    "jobs 1e999 a",
    "jobs 1 ",
    "jobs 1 é",
    "jobs  a",
    "jobs 1 a b",
    "\ud800",
    "jobs 1\0 a",
]


WITH_ANY_SCORE = st.builds(
    "jobs {} a".format, st.floats() | st.integers() | st.from_regex(r"[0-9.e+-]{1,32}", fullmatch=True)
)


@given(
    st.text(max_size=600)
    | st.text("jobs 019.e-+\0\n").map(made_up)
    | st.sampled_from(HOSTILE).map(made_up)
    | WITH_ANY_SCORE.map(made_up)
)
def test_a_made_up_cursor_is_refused_or_a_place(cursor: str) -> None:
    try:
        place = read_cursor("jobs", cursor)
    except InvalidRequest as error:
        assert error.code == "cursor_invalid"
    else:
        assert place is not None
        assert -(2**63) < int(place.score) < 2**63 - 1000, "what the server's commands take, a page further too"


@given(st.sets(st.integers(0, 50)), st.integers(1, 7))
def test_pages_have_every_row_once(numbers: set[int], limit: int) -> None:
    rows, cursor = sorted(numbers), None
    found: list[int] = []
    while True:
        page: Page[int] = page_of("n", rows, lambda row: Place(row, "-"), cursor=cursor, limit=limit)
        found += page.rows
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.rows) == limit
    assert found == rows
