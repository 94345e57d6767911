"""Two versions of a text: which clause is which, what moved, and the words that differ, by exact spans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.texts import DocumentText
from workers.analysis import word_diff
from workers.analysis.alignment import align
from workers.analysis.word_diff import tokens, word_changes
from workers.documents.assembly import Draft, assemble
from workers.tasks.compare import clauses, differences

TERM = "1. Term. This agreement lasts two years from the date of signing."
FEES = "2. Fees. The client pays 100 EUR a month to the firm, on the first day."
LAW = "3. Law. German law governs this agreement and all disputes that come of it."
NOTICE = "4. Notice. Notices are sent in writing to the address of the party."
DATA = "5. Data. The parties protect the personal data that they get from each other."


def document(*paragraphs: str) -> DocumentText:
    return assemble(Draft("txt", ("\n\n".join(paragraphs),)))


def compared(before: DocumentText, after: DocumentText) -> tuple[list[dict[str, Any]], dict[str, int]]:
    changes, counts = differences(before, after, lambda: None)
    for change in changes:
        for side, text in (("before", before.text), ("after", after.text)):
            place = change[side]
            assert place is None or text[place["start"] : place["end"]] == place["text"]
    old, new = len(clauses(before)), len(clauses(after))
    paired = counts["unchanged"] + counts["changed"] + counts["moved"]
    assert (old, new) == (paired + counts["removed"], paired + counts["added"])
    return changes, counts


def kinds(changes: list[dict[str, Any]]) -> list[str]:
    return [change["kind"] for change in changes]


def test_each_kind_is_told_and_stands_in_order() -> None:
    before = document(TERM, FEES, LAW, NOTICE)
    after = document(TERM.replace("two", "three"), LAW.replace("3.", "2."), FEES.replace("2.", "3."), DATA)
    changes, counts = compared(before, after)
    assert counts == {"unchanged": 0, "changed": 2, "moved": 1, "added": 1, "removed": 1}
    assert sorted(kinds(changes)) == ["added", "changed", "changed", "moved", "removed"]
    term = changes[0]
    assert [(before.text[slice(*word["before"])], after.text[slice(*word["after"])]) for word in term["words"]] == [
        ("two", "three")
    ]
    assert kinds(changes)[-2:] == ["removed", "added"]


def test_the_same_text_in_another_layout_is_unchanged() -> None:
    before = document(TERM, LAW, 'The "Firm" - a party - is bound by this agreement.')
    after = document(TERM.replace(" ", "\n", 3), LAW, "The “Firm” – a party – is\u00a0bound by this agreement.")
    assert compared(before, after) == (
        [],
        {"unchanged": 3, "changed": 0, "moved": 0, "added": 0, "removed": 0},
    )


def test_a_clause_put_before_repeated_ones_is_the_only_change() -> None:
    same = ["Reserved for later use by the parties."] * 300
    changes, counts = compared(document(*same), document(DATA, *same))
    assert (counts["unchanged"], counts["added"], len(changes)) == (300, 1, 1)


def test_lines_of_a_long_table_find_their_own() -> None:
    rows = [f"Item {n} costs {n * 7 % 13} EUR on day {n % 30} of each month of the term." for n in range(600)]
    _, counts = compared(document(*rows), document(*(row.replace("EUR", "USD") for row in rows)))
    assert counts["changed"] == 600


def test_parts_of_one_long_line_are_one_clause() -> None:
    long = " ".join(f"Sentence number {n} binds the parties." for n in range(120))
    assert len(document(long, LAW).paragraphs) > 3
    changes, counts = compared(document(long, LAW), document("Words put before it. " + long, LAW))
    assert counts == {"unchanged": 1, "changed": 1, "moved": 0, "added": 0, "removed": 0}
    assert [word["kind"] for word in changes[0]["words"]] == ["added"]


def test_repetitive_words_are_one_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = "a b " * 40 + "x", "b a " * 40 + "y"
    monkeypatch.setattr(word_diff, "MAX_PAIRS", 100)
    found = word_changes(tokens(one, 0, len(one)), tokens(other, 0, len(other)))
    assert [(change.kind, change.before, change.after) for change in found] == [("replaced", (0, 161), (0, 161))]


WORDS = st.lists(st.sampled_from(["shall", "party", "§", "“term”", "pay", "𝔘nd", "EUR", "5", "."]), max_size=25)


@given(WORDS, WORDS)
@settings(deadline=None)
def test_the_changed_words_turn_one_text_into_the_other(one: list[str], other: list[str]) -> None:
    before, after = "  ".join(one), " ".join(other)
    old, new = tokens(before, 0, len(before)), tokens(after, 0, len(after))
    found = word_changes(old, new)
    kept = [token.text for token in old if not any(s <= token.start < e for s, e in (c.before for c in found))]
    assert kept == [token.text for token in new if not any(s <= token.start < e for s, e in (c.after for c in found))]
    starts = [(change.before[0], change.after[0]) for change in found]
    assert starts == sorted(starts)


@given(st.lists(WORDS, max_size=30), st.data())
@settings(deadline=None)
def test_pairs_are_one_to_one_and_forward_unless_moved(before: list[list[str]], data: st.DataObject) -> None:
    after = data.draw(st.permutations(before)) + data.draw(st.lists(WORDS, max_size=3))
    pairs = align([tuple(words) for words in before], [tuple(words) for words in after], lambda: None)
    assert len({pair.before for pair in pairs}) == len({pair.after for pair in pairs}) == len(pairs)
    chain = [pair.before for pair in pairs if not pair.moved]
    assert chain == sorted(chain)
    assert all((pair.likeness == 1.0) == (before[pair.before] == after[pair.after]) for pair in pairs)


def test_a_real_pair_of_versions(data: Path) -> None:
    folder = data / "near_duplicates"
    if not folder.exists():
        pytest.skip("the near-duplicates are not there")
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()]
    pair = next(pair for pair in pairs if 0.9 < pair["jaccard"] < 0.99)
    before, after = (
        assemble(Draft("txt", ((folder / "texts" / f"{pair[side]}.txt").read_bytes().decode(),))) for side in "ab"
    )
    changes, counts = compared(before, after)
    assert changes
    assert counts["unchanged"] > len(changes)


def test_repeated_clauses_stand_where_their_neighbours_stand() -> None:
    """One of a hundred and fifty blank pages is gone: the others are no candidates of their own, and all unchanged."""
    blank = ("this", "page", "is", "blank")
    unique = [tuple(f"w{number}x{word}" for word in range(12)) for number in range(150)]
    before = [clause for one in unique for clause in (one, blank)]
    after = before[:7] + before[8:]
    pairs = align(before, after, lambda: None)
    assert [pair.after for pair in pairs] == list(range(299))
    assert all(pair.likeness == 1 and not pair.moved for pair in pairs)
