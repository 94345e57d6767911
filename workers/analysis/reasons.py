"""The rules and the parts of the risk as a result shows them: each with its reason and the places that show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from services.findings import Finding
from services.playbooks import Playbook
from services.texts import DocumentText
from workers.analysis.risk import Risk, apart
from workers.analysis.rules import ORDER, Judgement, Span


def rule_views(document: DocumentText, judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Every rule of the playbook, breached ones first, the gravest of them first.

    ``reason`` is the playbook's, why a breach matters; ``found`` says what decided.
    """
    ranked = sorted(judgements, key=lambda item: (ORDER.index(item.outcome), -item.rule.weight))
    return [
        {
            "id": item.rule.id,
            "title": item.rule.title,
            "outcome": item.outcome,
            "severity": item.rule.severity,
            "reason": item.rule.reason,
            "found": item.found,
            "spans": _spans(document, item.spans),
        }
        for item in ranked
    ]


def reasons(
    playbook: Playbook,
    document: DocumentText,
    findings: Iterable[Finding],
    risk: Risk,
    judgements: Iterable[Judgement],
) -> list[dict[str, Any]]:
    """What the score is made of, largest first: ``share`` of each part, which add up to the score.

    ``of`` is ``rule``, ``category`` where the clause itself is the risk, or ``missing`` where a category is.
    """
    found: defaultdict[str, list[Span]] = defaultdict(list)
    for finding in findings:
        found[finding.category].append((finding.start, finding.end))
    parts: list[tuple[float, dict[str, Any]]] = []
    for category in playbook.categories:
        if value := risk.by_category[category.id]:
            missing = category.id in risk.missing
            part = {
                "of": "missing" if missing else "category",
                "id": category.id,
                "title": category.title,
                "share": round(value / risk.total, 6),
                "why": category.risk_missing if missing else category.risk_present,
                "spans": _spans(document, apart(found[category.id])),
            }
            parts.append((value, part))
    for item in judgements:
        if value := risk.by_rule[item.rule.id]:
            part = {
                "of": "rule",
                "id": item.rule.id,
                "title": item.rule.title,
                "share": round(value / risk.total, 6),
                "why": item.rule.reason,
                "spans": _spans(document, item.spans),
            }
            parts.append((value, part))
    return [part for _, part in sorted(parts, key=lambda pair: -pair[0])]


def _spans(document: DocumentText, spans: Iterable[Span]) -> list[dict[str, Any]]:
    return [
        {"start": start, "end": end, "page": document.page_at(start), "text": document.text[start:end]}
        for start, end in spans
    ]
