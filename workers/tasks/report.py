"""Step ``report``: one result out of what the steps found, with where it comes from."""

from __future__ import annotations

import importlib.metadata
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from services.findings import Finding
from services.playbooks import Playbook
from services.texts import DocumentText
from workers.analysis.reasons import reasons, rule_views
from workers.analysis.risk import assess
from workers.analysis.rules import Span, judge
from workers.execution import Execution
from workers.tasks.clauses import evidence
from workers.tasks.scan import findings_of
from workers.tasks.sensitive import sensitive_of
from workers.toolbox import Toolbox

_STEPS = ("extract", "scan", "sensitive", "context", "embed", "clauses", "terms")
NOTICE = "Screening by software, not legal advice. Check every finding against the document."


def report(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """The result of a review or an analysis."""
    execution.check()
    claim = execution.claim
    steps = {name: toolbox.step(claim, name) for name in claim.outputs}
    playbook = toolbox.playbook(claim)
    document = toolbox.text(claim)
    findings = findings_of(toolbox, claim)
    clauses: list[dict[str, Any]] = steps["clauses"]["clauses"] if "clauses" in steps else []
    answers: list[dict[str, Any]] = json.loads(toolbox.step_output(claim, "terms")) if "terms" in steps else []
    present = _present(playbook, clauses, answers)
    grounds = _grounds(playbook, findings, steps.get("clauses"))
    judgements = judge(playbook, document, findings, present=present, check=execution.check)
    breached = {item.rule.id for item in judgements if item.outcome == "breached"}
    risk = assess(playbook, grounds, present=present, breached=breached)
    categories = {category.id: category for category in playbook.categories}
    sensitive = sensitive_of(toolbox, claim)
    result: dict[str, Any] = {
        "document": {"id": steps["extract"]["document"], "name": toolbox.input(claim).get("name")},
        "kind": document.kind,
        "pages": len(document.pages),
        "notes": list(document.notes),
        "risk": {
            "score": round(risk.score, 4),
            "by_category": {
                categories[category].title: round(value, 4) for category, value in risk.by_category.items() if value
            },
            "reasons": reasons(playbook, document, grounds, risk, judgements),
        },
        "rules": rule_views(document, judgements),
        "findings": [
            _place(document, finding) | {"category": categories[finding.category].title} for finding in findings
        ],
        "pii": personal_data(playbook, document, findings, sensitive["personal"]),
        "privilege": [_where(document, sign["start"], sign["end"]) | _reason(sign) for sign in sensitive["privilege"]],
        "missing": [
            {"category": categories[category].title, "why": categories[category].risk_missing}
            for category in risk.missing
        ],
        "clauses": clauses,
        "presence": steps["clauses"]["presence"] if "clauses" in steps else {},
        # Whether all that takes time had been done before, for this very text, playbook and models.
        "reused": all(step.get("reused", True) for step in steps.values()),
        "provenance": _provenance(steps),
        "notice": NOTICE,
    }
    if "terms" in steps:
        model = steps["terms"]["model"]["name"]
        result["terms"] = [answer | {"by": model} for answer in answers if answer["supported"]]
        result["unsupported_terms"] = [answer | {"by": model} for answer in answers if not answer["supported"]]
    return result


def _grounds(playbook: Playbook, findings: list[Finding], step: dict[str, Any] | None) -> list[Finding]:
    """What the risk rests on: as step ``clauses`` decided, where there was one."""
    if step is None:
        return findings
    ids = {category.title: category.id for category in playbook.categories}
    spans = [(ids[item["category"]], item["start"], item["end"]) for item in step["clauses"]]
    return evidence(findings, spans, {ids[title] for title in step["presence"]})


def _present(playbook: Playbook, clauses: list[dict[str, Any]], answers: list[dict[str, Any]]) -> dict[str, list[Span]]:
    """Where clauses and supported terms were found, by the id of their category."""
    ids = {category.title: category.id for category in playbook.categories}
    present: defaultdict[str, list[Span]] = defaultdict(list)
    for clause in clauses:
        present[ids[clause["category"]]].append((clause["start"], clause["end"]))
    for answer in answers:
        if answer["supported"]:
            present[answer["term"]].append((answer["start"], answer["end"]))
    return dict(present)


def personal_data(
    playbook: Playbook, document: DocumentText, findings: Sequence[Finding], found: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Personal data in order of place: what the finders ``found``, and of the playbook's own what they have not.

    A playbook's finding that shares a character with one of the finders' is the same datum and left out.
    """
    titles = {category.id: category.title for category in playbook.categories if category.kind == "personal_data"}
    ends = [datum["end"] for datum in found]

    def is_new(finding: Finding) -> bool:
        following = bisect_right(ends, finding.start)
        return following == len(found) or found[following]["start"] >= finding.end

    own = [finding for finding in findings if finding.category in titles and is_new(finding)]
    data = [
        _where(document, datum["start"], datum["end"]) | _reason(datum) | {"type": datum["type"]} for datum in found
    ]
    data += [
        _place(document, finding) | {"type": titles[finding.category], "why": f"term of the playbook: {finding.term}"}
        for finding in own
    ]
    return sorted(data, key=lambda datum: (datum["start"], datum["end"]))


def _place(document: DocumentText, finding: Finding) -> dict[str, Any]:
    return _where(document, finding.start, finding.end) | {"term": finding.term}


def _where(document: DocumentText, start: int, end: int) -> dict[str, Any]:
    return {"start": start, "end": end, "page": document.page_at(start), "text": document.text[start:end]}


def _reason(found: dict[str, Any]) -> dict[str, Any]:
    return {"score": found["score"], "why": found["why"]}


def _missed(steps: dict[str, dict[str, Any]]) -> list[str]:
    """What a review could have had with other models: ``heads`` are the trained ones that find clauses."""
    heads = [] if "clauses" in steps and steps["clauses"]["heads"] else ["heads"]
    return [*heads, *(["terms"] if "terms" not in steps else [])]


def _provenance(steps: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Versions, models, adapter and seconds of every step."""
    scan = steps["scan"]
    models = {name: steps[name]["model"] for name in sorted(steps, key=_STEPS.index) if "model" in steps[name]}
    return {
        "casemill": importlib.metadata.version("casemill"),
        "playbook": {"name": scan["playbook"], "sha256": scan["playbook_version"]},
        "scan_engine": scan["engine"],
        "models": models,
        "clause_heads": steps["clauses"]["heads"] if "clauses" in steps else None,
        "steps": sorted(steps, key=_STEPS.index),
        "without": _missed(steps),
        "seconds": {name: step["seconds"] for name, step in steps.items() if "seconds" in step},
        "reused": [name for name, step in steps.items() if step.get("reused")],
    }
