"""Streaming: characters whole, stop strings never shown, whatever the pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from workers.engines.text_stream import TextStream


def run(data: bytes, cuts: list[int], stops: tuple[str, ...]) -> tuple[list[str], TextStream]:
    stream = TextStream(stops)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    shown = [stream.push(data[a:b]) for a, b in pairwise(edges)]
    return [*shown, stream.finish()], stream


@given(st.text(max_size=60), st.lists(st.integers(0, 300), max_size=20))
def test_any_cut_of_the_bytes_gives_the_text(text: str, cuts: list[int]) -> None:
    text = text.encode("utf-8", "replace").decode()
    shown, stream = run(text.encode(), cuts, ())
    assert "".join(shown) == text == stream.text
    assert not stream.stopped


@given(
    st.text("abé", max_size=40),
    st.lists(st.integers(0, 90), max_size=30),
    st.lists(st.text("abé", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple),
)
def test_no_part_of_a_stop_string_is_shown(text: str, cuts: list[int], stops: tuple[str, ...]) -> None:
    edges = cuts or list(range(len(text.encode()) + 1))
    shown, stream = run(text.encode(), edges, stops)
    result = "".join(shown)
    assert not any(stop in result for stop in stops)
    assert text.startswith(result)
    assert stream.stopped == any(stop in text for stop in stops)
    if not stream.stopped:
        assert result == text


def test_holds_back_only_what_may_become_a_stop() -> None:
    stream = TextStream(("\n\nEND",))
    assert stream.push(b"clause one\n") == "clause one"
    assert stream.push(b"\nEN") == ""
    assert stream.push(b"TITY") == "\n\nENTITY"
    assert stream.push(b"\n\nEND of it") == ""
    assert stream.stopped
    assert stream.push(b"more") == ""
    assert stream.finish() == ""
    assert stream.text == "clause one\n\nENTITY"


def test_broken_bytes_become_replacement_characters() -> None:
    stream = TextStream()
    assert stream.push("§".encode()[:1]) == ""
    assert stream.push(b"x") == "\ufffdx"
    assert stream.push("€".encode()[:2]) == ""
    assert stream.finish() == "\ufffd"
