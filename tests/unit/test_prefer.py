"""The header ``Prefer``, as hostile as it comes, and how long who was refused shall stay away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.prefer import read_preference
from services.backlog_limits import MOST_SECONDS, seconds_to_room


@given(st.text(max_size=300) | st.text('wait=0123456789,;" \\', max_size=2000))
def test_any_header_is_a_preference_within_the_limit(header: str) -> None:
    wait = read_preference(header, 60).wait
    assert wait is None or 0 <= wait <= 60


@given(st.integers(0, 10**8))
def test_a_wait_is_capped(seconds: int) -> None:
    assert read_preference(f"foo, wait={seconds}", 60).wait == min(60, seconds)


def test_room_comes_as_fast_as_jobs_end() -> None:
    assert seconds_to_room(1, 1000, 2.0, 4) == round(11 * 2 / 4)
    assert seconds_to_room(1, 10, 0.001, 4) == 1
    assert seconds_to_room(1, 10**6, 60.0, 0) == MOST_SECONDS
    assert seconds_to_room(9, 100, None, 1) == 10
