"""From findings to risk: a figure for each category and for the document, and the clauses that are missing.

With ``n`` places found in a category (overlapping findings are one place) and the category's weight ``w``, its risk is

- ``w * (1 - 2**-n)`` where the clause itself is the risk: half at the first place, ever less for each further one;
- ``w`` where the category is required and nothing was found, 0 where it was found.

The document's score is the sum of these over the sum of all weights: the share of the playbook's conceivable risk that
the document carries. More places never lower a risk, and a missing clause never lowers the score.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from services.findings import Finding
from services.playbooks import Category, Playbook


@dataclass(frozen=True, slots=True)
class Risk:
    """``score`` and all of ``by_category`` (every category, by id) lie in 0 to 1; ``missing`` has category ids."""

    score: float
    by_category: Mapping[str, float]
    missing: tuple[str, ...]


def assess(playbook: Playbook, findings: Iterable[Finding], *, present: Collection[str] = ()) -> Risk:
    """The risk of a document with ``findings``; those of categories that are not in the playbook count nothing.

    ``present`` are ids of categories that other means than the scan have found: they are not missing.
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
    total = sum(category.weight for category in playbook.categories)
    score = min(1.0, sum(by_category.values()) / total) if total else 0.0
    return Risk(score, by_category, missing)


def category_risk(category: Category, count: int) -> float:
    """Risk of one category with ``count`` places found, in 0 to its weight."""
    if category.required:
        return 0.0 if count else category.weight
    return category.weight * (1 - 2.0**-count)


def places(spans: Iterable[tuple[int, int]]) -> int:
    """The most spans of which no two overlap, so that a further span never makes the count smaller."""
    count, reached = 0, 0
    for end, start in sorted((end, start) for start, end in spans):
        if start >= reached:
            count += 1
            reached = end
    return count
