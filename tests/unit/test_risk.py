"""Risk: its bounds, its direction, and what is missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.findings import Finding
from services.playbooks import default_playbook, load_playbook
from workers.analysis.risk import assess, places

PLAYBOOK = load_playbook("""
name: small
categories:
  - {id: law, title: Law, weight: 0.5, required: true, literals: [law]}
  - {id: ban, title: Ban, weight: 1, literals: [ban]}
  - {id: note, title: Note, weight: 0, literals: [note]}
""")
FINDINGS = st.lists(
    st.builds(
        lambda category, start, length: Finding(category, start, start + length, "x"),
        st.sampled_from(["law", "ban", "note", "unknown"]),
        st.integers(0, 60),
        st.integers(1, 20),
    ),
    max_size=12,
)


def test_figures_are_those_of_the_rule() -> None:
    nothing = assess(PLAYBOOK, [])
    assert nothing.by_category == {"law": 0.5, "ban": 0.0, "note": 0.0}
    assert nothing.missing == ("law",)
    assert nothing.score == pytest.approx(0.5 / 1.5)
    some = assess(PLAYBOOK, [Finding("law", 0, 3, "law"), Finding("ban", 5, 8, "ban"), Finding("ban", 9, 12, "ban")])
    assert some.by_category == {"law": 0.0, "ban": 0.75, "note": 0.0}
    assert some.missing == ()
    assert some.score == pytest.approx(0.5)


def test_overlapping_findings_are_one_place() -> None:
    assert places([(0, 9), (2, 5), (4, 12)]) == 1
    assert places([(0, 4), (4, 8), (2, 6)]) == 2


@given(FINDINGS, FINDINGS)
def test_more_findings_never_lower_a_risk_of_presence(some: list[Finding], more: list[Finding]) -> None:
    before, after = assess(PLAYBOOK, some), assess(PLAYBOOK, some + more)
    assert after.by_category["ban"] >= before.by_category["ban"]
    assert set(after.missing) <= set(before.missing)
    for risk in (before, after):
        assert 0 <= risk.score <= 1
        assert all(0 <= value <= 1 for value in risk.by_category.values())


@given(FINDINGS)
def test_a_missing_clause_never_lowers_the_score(findings: list[Finding]) -> None:
    without = [finding for finding in findings if finding.category != "law"]
    assert assess(PLAYBOOK, without).score >= assess(PLAYBOOK, findings).score
    assert assess(PLAYBOOK, list(reversed(findings))) == assess(PLAYBOOK, findings)


def test_default_playbook_reports_all_required_categories_of_an_empty_document() -> None:
    playbook = default_playbook()
    risk = assess(playbook, [])
    assert list(risk.missing) == [category.id for category in playbook.categories if category.required]
    assert 0 < risk.score < 1


def test_what_other_means_have_found_is_not_missing() -> None:
    book = default_playbook()
    bare, told = assess(book, []), assess(book, [], present={"governing_law"})
    assert set(bare.missing) - set(told.missing) == {"governing_law"}
    assert told.by_category["governing_law"] == 0.0
    assert told.score < bare.score


def test_a_playbook_without_weight_has_no_risk() -> None:
    playbook = load_playbook("name: x\ncategories: [{id: c, title: C, weight: 0, literals: [c]}]")
    assert assess(playbook, [Finding("c", 0, 1, "c")]).score == 0
