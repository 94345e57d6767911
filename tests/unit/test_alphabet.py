"""Which characters the sets of a playbook take, as `re` says, and the symbols that tell them apart."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services import patterns
from services.patterns import PatternError, parse_pattern
from services.playbooks import fold
from shaders import alphabet
from shaders.alphabet import CODE_POINTS, WHITE, Alphabet, Ranges, literal_members, pattern_members

EVERYTHING = "".join(map(chr, range(CODE_POINTS)))

CHARS = st.sampled_from(
    "azAZikKsSſµμıİßσςΣǅ\u0345\u1fbe\u212aé§_09٣ \u00a0\u2028漢\U00010400\U0001f600\U0010ffff"
) | st.characters(exclude_categories=["Cs"])


def written(char: str) -> st.SearchStrategy[str]:
    """How a character may be written in a set."""
    code = ord(char)
    forms = [re.escape(char) if char in "[]^-\\&~|" else char]
    forms += [f"\\x{code:02x}"] if code < 0x100 else []
    forms += [f"\\u{code:04X}"] if code < 0x10000 else []
    return st.sampled_from(forms)


ONES = CHARS.flatmap(written)
CLASSES = st.sampled_from([r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\n", r"\t", r"\r"])
SPANS = st.tuples(ONES, st.just("-"), ONES).map("".join)
SETS = st.tuples(st.sampled_from(["[", "[^"]), st.lists(ONES | SPANS | CLASSES, min_size=1, max_size=4)).map(
    lambda parts: parts[0] + "".join(parts[1]) + "]"
)


def taken(source: str) -> bool:
    try:
        parse_pattern(f"{source}x")
    except PatternError:  # such as a range that ends before it begins
        return False
    return True


def codes(ranges: Ranges) -> NDArray[np.bool_]:
    """Which of all code points they are."""
    found = np.zeros(CODE_POINTS, np.bool_)
    for start, end in ranges:
        found[start:end] = True
    return found


def codes_by_re(source: str) -> NDArray[np.bool_]:
    runs = re.finditer(f"(?:{source}){{1,{CODE_POINTS}}}", EVERYTHING, re.IGNORECASE)
    return codes(tuple(run.span() for run in runs))


@pytest.mark.parametrize(
    "source", ["k", "K", "s", "i", "İ", "ß", "σ", "ǆ", "漢", "\u0345", "-", r"\.", "[a-z]", r"\w", r"\n", ".", "[^k]"]
)
def test_members_of_a_set_are_those_of_re(source: str) -> None:
    assert np.array_equal(codes(pattern_members(source)), codes_by_re(source))


@settings(max_examples=40, deadline=None)
@given(SETS.filter(taken))
@example("[\\r\U0006046b-\U00060496\\d]")
@example("[\U0010ffff]")
@example("[^\\w\\-\u2028]")
@example("[\U00010400-\U00010427]")
def test_members_of_any_set_are_those_of_re(source: str) -> None:
    assert np.array_equal(codes(pattern_members(source)), codes_by_re(source))


def test_a_set_is_not_looked_for_among_all_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern_members(r"[\w]")

    def fail() -> str:
        raise AssertionError("1.1 million characters searched for one set")

    monkeypatch.setattr(alphabet, "_all_characters", fail)
    for source in ("[qz]", "[^qz§]", r"[\wq-z]", "q", "漢", r"\."):
        assert pattern_members(source)


def test_only_so_many_sets_are_kept() -> None:
    for code in range(0x4E00, 0x4E00 + 1500):
        parse_pattern(f"[{chr(code)}{chr(code + 1)}]x")
        pattern_members(f"[{chr(code)}{chr(code + 1)}]")
    caches = (pattern_members, patterns.white_members, vars(patterns)["_sample"])
    assert all(cache.cache_info().currsize <= 1024 for cache in caches)


def test_members_of_a_letter_are_all_that_fold_to_it() -> None:
    for letter in "aikßσé§":
        folded = [char == letter for char in fold(EVERYTHING)]
        assert np.array_equal(codes(literal_members(letter)), folded)


@settings(max_examples=40, deadline=None)
@given(st.lists(SETS.filter(taken), max_size=8))
def test_symbols_tell_apart_what_sets_tell_apart(sources: list[str]) -> None:
    found = [pattern_members(source) for source in sources]
    symbols = Alphabet(found)
    assert not symbols.is_shared
    white = codes(pattern_members(r"\s"))
    assert np.array_equal(symbols.table == WHITE, white)
    for ranges in found:
        members = np.isin(symbols.table, list(symbols.symbols_of(ranges)))
        assert np.array_equal(members & ~white, codes(ranges) & ~white)
