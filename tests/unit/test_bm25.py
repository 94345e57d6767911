"""Words of clauses: counted, kept without padding, and read back as they were."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.analysis.bm25 import Words, bm25


def words(*clauses: str) -> Words:
    spans: list[tuple[int, int]] = []
    for clause in clauses:
        start = spans[-1][1] + 1 if spans else 0
        spans.append((start, start + len(clause)))
    return Words.of("\n".join(clauses), spans, lambda: None)


@given(st.lists(st.text(), max_size=5))
def test_words_survive_their_bytes(clauses: list[str]) -> None:
    counted = words(*clauses)
    read = Words.from_bytes(counted.to_bytes())
    assert read.vocabulary == counted.vocabulary == sorted(counted.vocabulary)
    for word in [*counted.vocabulary, "absent"]:
        for one, other in zip(read.postings(word), counted.postings(word), strict=True):
            assert one.tolist() == other.tolist()
    assert np.array_equal(read.spans, counted.spans)
    assert read.lengths.tolist() == counted.lengths.tolist()


def test_a_long_word_takes_no_more_room_than_its_letters() -> None:
    rare = [f"w{number}" for number in range(1000)]
    long = "a" * 50_000
    counted = words(" ".join(rare), long)
    assert len(counted.to_bytes()) < 200_000  # 200 MB where each word has the longest one's room
    rows, counts = Words.from_bytes(counted.to_bytes()).postings(long)
    assert (rows.tolist(), counts.tolist()) == ([1], [1])


def test_a_clause_scores_by_the_words_it_shares_with_the_query() -> None:
    counted = Words.from_bytes(words("The term may be terminated.", "Rent is due.", "").to_bytes())
    scores = bm25([counted, counted], "termination").tolist()
    assert scores[0] == scores[3] > 0
    assert scores[1:3] == scores[4:] == [0, 0]
