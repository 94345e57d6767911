"""From findings and rules to risk: a figure for each category and for the document, its reasons, and what is missing.

With ``n`` places found in a category (overlapping findings are one place) and the category's weight ``w``, its risk is

- ``w * (1 - 2**-n)`` where the clause itself is the risk: half at the first place, ever less for each further one;
- ``w`` where the category is required and nothing was found, 0 where it was found.

A rule that is breached carries the weight of its severity; one that is met or unknown carries nothing, as only what was
found counts. The document's score is the sum of all these over the sum of all weights, categories' and rules': the
share of the playbook's conceivable risk that the document carries. More places never lower a risk, a missing clause
never lowers the score by itself, and neither does a rule that turns to breached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from services.findings import Finding
from services.playbooks import Category, Playbook


@dataclass(frozen=True, slots=True)
class Risk:
    """``score`` and all of ``by_category`` and ``by_rule`` (each, by id) lie in 0 to 1; ``missing`` has category ids.

    ``total`` is the sum of all weights: a category's or rule's share of the score is its risk over ``total``.
    """

    score: float
    by_category: Mapping[str, float]
    by_rule: Mapping[str, float]
    missing: tuple[str, ...]
    total: float


def assess(
    playbook: Playbook,
    findings: Iterable[Finding],
    *,
    present: Collection[str] = (),
    breached: Collection[str] = (),
) -> Risk:
    """The risk of a document with ``findings``; those of categories that are not in the playbook count nothing.

    ``present`` are ids of categories that other means than the scan have found: they are not missing. ``breached`` are
    ids of rules.
    """
    spans: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for finding in findings:
        spans[finding.category].append((finding.start, finding.end))
    missing = tuple(
        item.id for item in playbook.categories if item.required and not spans[item.id] and item.id not in present
    )
    by_category = {
        item.id: 0.0 if item.required and item.id not in missing else category_risk(item, places(spans[item.id]))
        for item in playbook.categories
    }
    by_rule = {rule.id: rule.weight if rule.id in breached else 0.0 for rule in playbook.rules}
    total = sum(item.weight for item in (*playbook.categories, *playbook.rules))
    score = min(1.0, (sum(by_category.values()) + sum(by_rule.values())) / total) if total else 0.0
    return Risk(score, by_category, by_rule, missing, total)


def category_risk(category: Category, count: int) -> float:
    """Risk of one category with ``count`` places found, in 0 to its weight."""
    if category.required:
        return 0.0 if count else category.weight
    return category.weight * (1 - 2.0**-count)


def places(spans: Iterable[tuple[int, int]]) -> int:
    """How many places spans are: see :func:`apart`."""
    return len(apart(spans))


def apart(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The most spans of which no two overlap, in order, so that a further span never makes them fewer."""
    found: list[tuple[int, int]] = []
    for end, start in sorted((end, start) for start, end in spans):
        if not found or start >= found[-1][1]:
            found.append((start, end))
    return found
