"""Loading and checking playbooks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidRequest
from services.findings import Finding
from services.playbooks import canonical, default_playbook, fold, load_playbook, own_clauses

GOOD = """\
name: leases
title: Commercial leases
categories:
  - id: rent_review
    title: Rent review
    weight: 0.4
    required: true
    literals:
      - Rent  Review
      - {text: indexat, whole_words: false}
    patterns: ['\\brent of [£$€]\\d{1,9}']
    risk: {present: Check the index., missing: The rent never changes.}
  - {id: email, title: E-mail, kind: personal_data, weight: 1, patterns: ['\\w{1,9}@\\w{1,9}']}
"""


def test_reads_everything_a_category_can_say() -> None:
    playbook = load_playbook(GOOD)
    rent, email = playbook.categories
    assert (playbook.name, playbook.title) == ("leases", "Commercial leases")
    assert (rent.weight, rent.required, rent.kind, rent.risk_missing) == (
        0.4,
        True,
        "clause",
        "The rent never changes.",
    )
    assert [(term.text, term.whole_words) for term in rent.literals] == [("Rent  Review", True), ("indexat", False)]
    assert rent.patterns[0].source == r"\brent of [£$€]\d{1,9}"
    assert (email.kind, email.required, email.weight) == ("personal_data", False, 1.0)


def test_version_follows_the_content_and_nothing_else() -> None:
    playbook = load_playbook(GOOD)
    assert (
        playbook
        == load_playbook("# a comment\n" + GOOD.replace("weight: 0.4", "weight:   .4"))
        == load_playbook(GOOD.encode())
    )
    assert len(playbook.version) == 64
    changes = [
        ("leases", "lease"),
        ("0.4", "0.5"),
        ("required: true", "required: false"),
        ("Rent  Review", "Rent"),
        ("whole_words: false", "whole_words: true"),
        ("{1,9}']\n    risk", "{1,8}']\n    risk"),
        ("index.", "index!"),
    ]
    versions = {load_playbook(GOOD.replace(old, new, 1)).version for old, new in changes}
    assert len(versions | {playbook.version}) == len(changes) + 1


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("categories:\n", "categories:\n  - [\n", 5, "not YAML"),
        ("title: Rent review", "tittle: Rent review", 5, "no key `tittle`"),
        ("name: leases\n", "", 1, "needs `name`"),
        ("name: leases", "name: ../leases", 1, "`name` must be"),
        ("weight: 0.4", "weight: 1.5", 6, "`weight` must be"),
        ("weight: 0.4", "weight: nan", 6, "`weight` must be"),
        ("required: true", "required: maybe", 7, "true or false"),
        ("required: true", "required: true\n    required: true", 8, "stands twice"),
        ("- Rent  Review", "-", 9, "must be a text"),
        ("- Rent  Review", "- '  '", 9, "is empty"),
        ("- Rent  Review", "- " + "x" * 201, 9, "201 characters"),
        ("- Rent  Review", "- INDEXAT", 10, "stands twice"),
        ("whole_words: false", "whole: false", 10, "no key `whole`"),
        (r"[£$€]\\d{1,9}", "[£$€]", 11, "not YAML"),
        ("rent of [£$€]\\d{1,9}", "rent of .*", 11, "no upper bound"),
        ("[£$€]\\d{1,9}']", "', indexat]", 11, "among the literals"),
        ("id: email", "id: rent_review", 13, "stands twice"),
        ("id: email", "id: E-mail", 13, "`id` must be"),
        ("kind: personal_data", "kind: pii", 13, "`kind` must be"),
        (", patterns: ['\\w{1,9}@\\w{1,9}']", "", 13, "no terms"),
        ("patterns: ['\\w{1,9}@\\w{1,9}']", "patterns: x", 13, "must be a list"),
    ],
)
def test_refusals_name_line_and_reason(old: str, new: str, line: int, reason: str) -> None:
    text = GOOD.replace(old, new, 1) if old in GOOD else GOOD.replace("['\\brent of", '["\\brent of', 1)
    with pytest.raises(InvalidRequest) as caught:
        load_playbook(text)
    assert caught.value.code == "playbook_invalid"
    assert caught.value.detail.startswith(f"line {line}: ")
    assert reason in caught.value.detail


@pytest.mark.parametrize(
    "data",
    [
        "",
        "# nothing",
        "[]",
        "name: x",
        "name: x\ncategories: []",
        b"\xff\xfe\x00",
        "\x00",
        "[" * 100_000,
        "a: &a [*a]",
        "x" * (2 << 20),
        "!!python/object/apply:os.system [x]",
        "name: x\ncategories: [&c {id: c, title: C, weight: 1, literals: [c]}, *c]",
    ],
)
def test_anything_else_is_refused(data: bytes | str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load_playbook(data)
    assert caught.value.code == "playbook_invalid"


@pytest.mark.parametrize(("kind", "count"), [("literals", 22_000), ("patterns", 600)])
def test_too_many_terms_are_refused(kind: str, count: int) -> None:
    terms = "\n".join(f"      - {'term' * 45} {number}" for number in range(count))
    with pytest.raises(InvalidRequest, match=f"the {kind} together .* split the playbook"):
        load_playbook(f"name: x\ncategories:\n  - id: c\n    title: C\n    weight: 1\n    {kind}:\n{terms}\n")


def test_default_playbook_has_cuads_categories_and_personal_data(data: Path) -> None:
    playbook = default_playbook()
    names = [category["name"] for category in json.loads((data / "cuad" / "categories.json").read_text("utf-8"))]
    clauses = [category for category in playbook.categories if category.kind == "clause"]
    assert sorted(category.title for category in clauses) == sorted(names)
    assert len(playbook.categories) > len(clauses)
    required = {category.title for category in clauses if category.required}
    assert {"Governing Law", "Parties"} <= required
    for category in clauses:
        assert 3 <= len(category.literals) + len(category.patterns) <= 17 or category.id == "document_name"
        assert category.risk_missing if category.required else category.risk_present


def test_folding_keeps_every_offset() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    folded = fold(everything)
    assert len(folded) == len(everything)
    assert fold(folded) == folded
    for char, lower in zip(everything, folded, strict=True):
        assert lower == (char.lower() if len(char.lower()) == 1 else "i")


@given(st.text())
def test_canonical_is_stable_and_blind_to_case_and_blanks(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once == canonical("\u00a0".join(text.split()) + "\n\t")


def test_finding_survives_json() -> None:
    finding = Finding("governing_law", 3, 16, "governing law")
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding


def test_a_clause_without_a_trained_head_is_a_firms_own() -> None:
    playbook = load_playbook(
        "name: leases\ncategories:\n"
        "  - {id: governing_law, title: Law, weight: 1, literals: [law]}\n"
        "  - {id: rent_review, title: Rent review, weight: 1, literals: [rent review]}\n"
        "  - {id: health_data, title: Health data, weight: 1, literals: [health]}\n"
        "  - {id: landlord, title: Landlord, weight: 1, kind: anchor, literals: [landlord]}\n"
    )
    # health_data is personal data in the default playbook, which no head finds.
    assert own_clauses(playbook) == {"rent_review", "health_data"}
    assert own_clauses(default_playbook()) == set()


def category(ident: str, patterns: list[str]) -> dict[str, object]:
    return {"id": ident, "title": ident, "weight": 0.5, "patterns": patterns}


def sets_from(code: int, count: int) -> str:
    return "".join(f"[{chr(place)}{chr(place + 1)}]" for place in range(code, code + count))


def test_only_so_many_different_sets() -> None:
    """Each is compared with every character that a playbook names, so their number decides how long a plan takes."""
    patterns = [sets_from(0x4E00 + 100 * part, 100) for part in range(10)]
    content: dict[str, Any] = {"name": "x", "categories": [category("a", patterns), category("b", patterns)]}
    assert len(load_playbook(yaml.safe_dump(content)).categories) == 2, "the same sets count once"
    more = content | {"categories": [*content["categories"], category("c", ["[xy]"])]}
    rule = {"id": "r", "title": "R", "kind": "required", "category": "a", "severity": "low", "reason": "Why."}
    ruled = content | {"rules": [rule | {"where": ["[xy]"]}]}
    for text in (yaml.safe_dump(more), yaml.safe_dump(ruled)):
        with pytest.raises(InvalidRequest) as caught:
            load_playbook(text)
        line = 1 + text[: text.index("[xy]")].count("\n")
        assert caught.value.detail.startswith(f"line {line}: the patterns have more than 1,000 different sets")


def test_ranges_span_only_so_many_characters() -> None:
    wide = ["[!-龥]" * 22 + str(number) for number in range(12)]
    assert load_playbook(yaml.safe_dump({"name": "x", "categories": [category("a", wide[:10])]}))
    with pytest.raises(InvalidRequest, match="span more than 10,000,000 characters; split"):
        load_playbook(yaml.safe_dump({"name": "x", "categories": [category("a", wide)]}))
