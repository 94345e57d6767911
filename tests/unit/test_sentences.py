"""Sentences: where a contract's text is parted, exact and without loss."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.texts import DocumentText
from workers.analysis.sentences import LEAST, MOST, find_sentences


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in find_sentences(DocumentText("txt", text, (), ()))]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("The term ends. It may be renewed.", ["The term ends.", "It may be renewed."]),
        ('He said "so be it." Then he left.', ['He said "so be it."', "Then he left."]),
        (
            "Acme Inc. and Mr. Smith agree. See Sec. 4.2 of Ex. A.",
            ["Acme Inc. and Mr. Smith agree.", "See Sec. 4.2 of Ex. A."],
        ),
        ("(a) pay rent; (b) keep it clean; and", ["(a) pay rent;", "(b) keep it clean;", "and"]),
        ("2. INSURANCE\n\nThe tenant insures.", ["2. INSURANCE", "The tenant insures."]),
        ("a licence that is\n\n  not exclusive", ["a licence that is\n\n  not exclusive"]),
        ("as follows:\n\nfirst, rent", ["as follows:", "first, rent"]),
        ("on this page\fand the next. Done.", ["on this page\fand the next.", "Done."]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_a_text_is_parted(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


@given(st.text(st.sampled_from('aB1. ;:!?\n\r\f\t"”)§\u2003\U0001f600'), max_size=300) | st.text(max_size=200))
def test_nothing_is_lost_but_white_space_and_scraps(text: str) -> None:
    spans = find_sentences(DocumentText("txt", text, (), ()))
    last = 0
    for start, end in [*spans, (len(text), len(text))]:
        assert start >= last
        # Between two sentences there is white space, and scraps too short to say anything.
        assert all(len(scrap) < LEAST + 1 for scrap in text[last:start].split())
        last = end
    assert all(LEAST <= end - start <= MOST and text[start:end].strip() == text[start:end] for start, end in spans)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
@given(
    st.text(st.sampled_from('aB1. ;:"\n\n\n'), max_size=300).flatmap(lambda part: st.sampled_from([part, part * 99]))
)
def test_line_ends_of_any_kind_give_the_same_sentences(end: str, text: str) -> None:
    assert [part.replace(end, "\n") for part in sentences(text.replace("\n", end))] == sentences(text)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_new_paragraph_in_lower_case_is_a_sentence_whatever_ends_its_lines(end: str) -> None:
    text = "1. Use.\n\nThe tenant\nmay sublet.\n\nprior consent is needed.\n\n\nPets:\n\none cat"
    assert sentences(text.replace("\n", end)) == [
        "1. Use.",
        f"The tenant{end}may sublet.",
        "prior consent is needed.",
        "Pets:",
        "one cat",
    ]


@pytest.mark.parametrize(
    "text", ["word " * 4000, "x" * 20_000, "." * 20_000, "\n" * 100_000 + "a", ". " * 50_000, ";" * 50_000]
)
def test_monotonous_texts_are_parted_in_linear_time(text: str) -> None:
    assert all(end - start <= MOST for start, end in find_sentences(DocumentText("txt", text, (), ())))


@pytest.mark.parametrize("run", [")", '"', "]’", "(", '."', ". (", "\n)", ";"])
def test_no_run_of_signs_takes_the_square_of_its_length(run: str) -> None:
    code = (
        "import sys; from services.texts import DocumentText; from workers.analysis.sentences import find_sentences; "
        "find_sentences(DocumentText('txt', sys.argv[1] * (2_000_000 // len(sys.argv[1])), (), ()))"
    )
    # Seconds; the square of two million would be hours within the one call of a regular expression.
    subprocess.run([sys.executable, "-c", code, run], check=True, timeout=120)


def test_long_sentences_are_parted_at_blanks() -> None:
    parts = sentences("word " * 1000)
    assert all(part.endswith("word") and part.startswith("word") for part in parts)
    assert sum(part.count("word") for part in parts) == 1000
