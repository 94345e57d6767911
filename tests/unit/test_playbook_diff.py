"""What two playbooks differ in, and what is odd about one."""

from __future__ import annotations

from services.playbook_checks import term_count, warnings
from services.playbook_diff import diff
from services.playbooks import default_playbook, load_playbook

OLD = """\
name: x
categories:
  - {id: a, title: A, description: About a., weight: 0.5, literals: [one phrase, two phrase], patterns: ['x{2}']}
  - {id: b, title: B, description: About b., weight: 1, literals: [bee line]}
rules:
  - {id: r, title: R, kind: forbidden, category: a, severity: low, reason: Why.}
  - {id: s, title: S, kind: limit, category: a, severity: low, at_most: 30 days, reason: Why.}
"""
NEW = """\
name: y
title: Other
categories:
  - {id: c, title: C, description: About c., weight: 1, literals: [cee line]}
  - {id: a, title: A, description: About a., weight: 1, literals: [{text: one phrase, whole_words: false}, two phrase]}
rules:
  - {id: s, title: S, kind: limit, category: a, severity: high, at_most: 60 days, reason: Why.}
  - {id: t, title: T, kind: required, category: c, severity: low, reason: Why.}
"""


def test_categories_terms_and_rules_are_compared_by_id() -> None:
    assert diff(load_playbook(OLD), load_playbook(NEW)) == {
        "title": ["x", "Other"],
        "categories": {
            "added": ["c"],
            "removed": ["b"],
            "changed": [
                {
                    "id": "a",
                    "fields": {"weight": [0.5, 1.0]},
                    "terms_added": ['"…one phrase…"'],
                    "terms_removed": ['"one phrase"', "x{2}"],
                }
            ],
        },
        "rules": {
            "added": ["t"],
            "removed": ["r"],
            "changed": [{"id": "s", "fields": {"severity": ["low", "high"], "at_most": ["30 days", "60 days"]}}],
        },
    }


def test_order_alone_is_no_difference() -> None:
    first, second = "[one phrase, two phrase]", "[two phrase, one phrase]"
    found = diff(load_playbook(OLD), load_playbook(OLD.replace(first, second)))
    assert found["title"] is None
    assert all(not names for kind in ("categories", "rules") for names in found[kind].values())


def test_warnings_name_what_is_odd() -> None:
    playbook = load_playbook("""\
name: x
categories:
  - {id: a, title: A, weight: 0, required: true, literals: [of, late fee]}
  - {id: b, title: B, description: About b., weight: 0, literals: [Late  Fee]}
  - {id: c, title: C, kind: anchor, weight: 0, literals: [see line]}
""")
    assert warnings(playbook) == [
        "category `a`: `of` is short and will be found often",
        "category `a` has no description, by which alike paragraphs are found",
        "category `a` is required and does not say what follows when it is missing",
        "category `c` is an anchor, and no rule looks at it",
        "`late fee` stands in a and b",
        "all weights are 0 and there are no rules: the risk will always be 0",
    ]
    assert term_count(playbook) == 4


def test_the_default_playbook_has_nothing_odd_but_a_short_word() -> None:
    assert warnings(default_playbook()) == ["category `date_of_birth`: `dob` is short and will be found often"]
