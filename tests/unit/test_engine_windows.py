"""Windows over texts that follow one another: each kept once, none over the room, neighbours on both sides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.engines.windows import MARGIN, windows_of

ROOM = 510


@given(st.lists(st.integers(0, 40) | st.integers(0, ROOM), max_size=200))
def test_each_text_is_kept_once_in_a_window_that_fits(lengths: list[int]) -> None:
    windows = windows_of(lengths, ROOM)
    assert [place for window in windows for place in range(window.start, window.stop)] == list(range(len(lengths)))
    for window in windows:
        assert window.first <= window.start < window.stop <= window.end
        assert sum(lengths[window.first : window.end]) <= ROOM


@given(st.lists(st.integers(1, MARGIN // 2), min_size=1, max_size=300))
def test_short_texts_have_a_margin_on_both_sides(lengths: list[int]) -> None:
    for window in windows_of(lengths, ROOM):
        before, after = sum(lengths[window.first : window.start]), sum(lengths[window.stop : window.end])
        assert window.first == 0 or before > MARGIN // 2
        assert window.end == len(lengths) or after > MARGIN // 2


def test_a_text_as_long_as_the_room_stands_alone() -> None:
    (window,) = [each for each in windows_of([30, ROOM, 30], ROOM) if each.start == 1]
    assert (window.first, window.end) == (1, 2)
