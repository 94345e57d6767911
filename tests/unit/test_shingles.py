"""Shingles and their similarity are what the plain definition says, on every character and at every seam."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workers.analysis import shingles as module
from workers.analysis.shingles import jaccard, shingles

LONG = "x" * 63
KNOWN = [647238320938828432, 12177386171037120720]
# Letters whose lower case is odd (İ K ẞ Σ), digits that are none of ours, blanks, all planes, lone surrogates.
CHARS = "aAbB019 .-\n\u00a0_§éÉİ\u212aſßẞΣς٣Ａ漢\U0001f600\U00010428\U000e0041\ud800\u0301א"
WORD = st.sampled_from(["a", "the", "3rd", "10", "x" * 8, "y" * 9, LONG, LONG + "1", "Z" * 65, "z" * 130])
TEXT = st.text(alphabet=CHARS, max_size=60) | st.lists(WORD, max_size=30).map(" ".join)


def reference(text: str, ignore_numbers: bool = False) -> set[tuple[str, ...]]:
    words = re.findall("[a-z0-9]+", text.lower())
    if ignore_numbers:
        words = [word for word in words if not re.search("[0-9]", word)]
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


@settings(max_examples=300, deadline=None)
@given(one=TEXT, other=TEXT, ignore_numbers=st.booleans())
@example(one="", other="a b c d", ignore_numbers=False)
@example(one="a b c d e", other="A-B-C-D-E", ignore_numbers=False)
@example(one="a a a a a a", other="a a a a a", ignore_numbers=True)
@example(one="a b c d 1st e", other="a b c d e", ignore_numbers=True)
@example(one=f"a b c d {'z' * 64}x", other=f"a b c d {'z' * 64}y", ignore_numbers=False)
@example(one=f"a b c d {'z' * 65}", other=f"a b c d {'z' * 130}", ignore_numbers=False)
@example(one="\u212a İ \u212a x y", other="k i k x y", ignore_numbers=False)
def test_shingles_are_those_of_the_definition(one: str, other: str, ignore_numbers: bool) -> None:
    found = [shingles(text, ignore_numbers=ignore_numbers) for text in (one, other)]
    expected = [reference(text, ignore_numbers) for text in (one, other)]
    assert [len(hashes) for hashes in found] == [len(runs) for runs in expected]
    assert all((np.diff(hashes.astype(object)) > 0).all() for hashes in found)
    union = expected[0] | expected[1]
    shared = len(expected[0] & expected[1])
    assert jaccard(*found) == (round(shared / len(union), 6) if union else 0.0)


def test_every_character_parts_or_belongs_to_words_as_in_python() -> None:
    """Each code point between two letters, with a word of its own behind it, so that no place stands for another."""
    text = "".join([f"a{chr(point)}b n{point} " for point in range(sys.maxunicode + 1)])
    words = re.findall("[a-z0-9]+", text.lower())
    assert np.array_equal(shingles(text), shingles(" ".join(words)))


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    text = "This Agreement, made on the 3rd of May 2026; " * 5 + LONG * 3 + "é Ünder the law of Ohio "
    whole = shingles(text)
    ticks: list[int] = []
    monkeypatch.setattr(module, "_BLOCK", block)
    assert np.array_equal(shingles(text, tick=lambda: ticks.append(1)), whole)
    assert len(whole) == len(reference(text))
    assert len(ticks) >= 5


def test_a_huge_text_in_one_line_and_one_huge_word() -> None:
    text = " ".join(f"w{number}" for number in range(400_000))
    assert len(shingles(text)) == 400_000 - 4
    assert len(shingles("w" * 5_000_000)) == 0
    one, other = (shingles("a b c d " + "w" * 3_000_000 + last) for last in "xy")
    assert jaccard(one, other) == 0.0


def test_hashes_are_the_same_in_every_process() -> None:
    """Kept under documents, so a change of the hash needs a new version of the task."""
    assert shingles("The tenant shall pay the rent").tolist() == KNOWN


def test_similarities_of_the_data_are_exact(data: Path) -> None:
    """A sample of the labelled pairs, of all similarities."""
    folder = data / "near_duplicates"
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()][::12]
    names = {name for pair in pairs for name in (pair["a"], pair["b"])}
    sets = {name: shingles((folder / "texts" / f"{name}.txt").read_bytes().decode()) for name in names}
    assert len(pairs) > 30
    for pair in pairs:
        assert jaccard(sets[pair["a"]], sets[pair["b"]]) == pair["jaccard"]
