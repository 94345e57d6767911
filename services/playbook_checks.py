"""What is odd about a playbook that loads: sentences for its author, none of which stops an upload."""

from __future__ import annotations

from collections import defaultdict

from services.playbooks import Playbook, canonical

SHORT_CHARS = 3


def term_count(playbook: Playbook) -> int:
    """How many literals and patterns the playbook has."""
    return sum(len(category.literals) + len(category.patterns) for category in playbook.categories)


def warnings(playbook: Playbook) -> list[str]:
    """The sentences, in the order of the playbook."""
    found: list[str] = []
    homes: defaultdict[str, list[str]] = defaultdict(list)
    ruled = {rule.category for rule in playbook.rules}
    for category in playbook.categories:
        for literal in category.literals:
            homes[canonical(literal.text)].append(category.id)
            if len(canonical(literal.text)) <= SHORT_CHARS:
                found.append(f"category `{category.id}`: `{literal.text}` is short and will be found often")
        if category.kind == "clause" and not category.description:
            found.append(f"category `{category.id}` has no description, by which alike paragraphs are found")
        if category.required and not category.risk_missing:
            found.append(f"category `{category.id}` is required and does not say what follows when it is missing")
        if category.kind == "anchor" and category.id not in ruled:
            found.append(f"category `{category.id}` is an anchor, and no rule looks at it")
    found += [f"`{term}` stands in {' and '.join(ids)}" for term, ids in homes.items() if len(ids) > 1]
    if not any(category.weight for category in playbook.categories) and not playbook.rules:
        found.append("all weights are 0 and there are no rules: the risk will always be 0")
    return found
