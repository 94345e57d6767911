"""The playbook `consumer_terms` on terms of service in English and German: which unfair clauses it finds and grades.

Labels are spans of nine categories at three levels: 1 clearly fair, 2 potentially and 3 clearly unfair. RULES says
which rules stand for which category; a breached rule of high severity grades its category 3, another one 2. A found
span is right where it and a labelled one of level 2 or 3 share half of the shorter; a labelled one counts once, and
what is found on a fair clause is wrong. By service, a category is there where a span of level 2 or 3 is.

How well the risk orders services is Spearman's correlation of the playbook's score with the sum, over categories, of
the highest labelled level above 1. The words were chosen on the services at even places in their order (`seen`).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.playbooks import included_playbook
from services.texts import DocumentText, Page, Paragraph
from workers.analysis.risk import assess
from workers.analysis.rules import judge
from workers.analysis.scan import scan

DATA = Path(__file__).parents[3] / "shared" / "data" / "unfair_terms"
LANGUAGES = ("en", "de")
RULES = {
    "arbitration": ("arbitration", "arbitration_abroad"),
    "choice of law": ("law",),
    "content removal": ("removal", "removal_at_will"),
    "contract by using": ("use",),
    "jurisdiction": ("jurisdiction",),
    "limitation of liability": ("liability", "liability_for_injury"),
    "privacy included": ("privacy",),
    "unilateral change": ("change",),
    "unilateral termination": ("termination", "termination_at_will"),
}
Span = tuple[int, int]


@dataclass(frozen=True)
class Service:
    """Terms in one language; levels are the highest of each category that is there, 2 or 3; counts are of spans."""

    lang: str
    seen: bool
    labelled: Mapping[str, int]
    found: Mapping[str, int]
    spans: Mapping[str, Counter[str]]
    score: float


def main() -> int:
    """Print a table and one JSON line."""
    if not DATA.exists():
        print(f"the terms are not at {DATA}")
        return 1
    rows = [json.loads(line) for line in (DATA / "spans.jsonl").read_text(encoding="utf-8").splitlines()]
    order = sorted({row["service"] for row in rows})
    services = [_service(row, seen=order.index(row["service"]) % 2 == 0) for row in rows]
    figures: dict[str, Any] = {}
    for lang in LANGUAGES:
        chosen = [service for service in services if service.lang == lang]
        figures[f"{lang}_by_category"] = {
            category: {
                "span_p_r_f1": [round(value, 4) for value in _measures(_spans(chosen, [category]))],
                "service_p_r_f1": [round(value, 4) for value in _measures(_presence(chosen, [category]))],
            }
            for category in RULES
        }
        for category in RULES:
            spans = _spans(chosen, [category])
            print(f"{lang} {category:24s} spans {_shown(spans)}   services {_shown(_presence(chosen, [category]))}")
        for name, part in (
            ("", chosen),
            ("_seen", [service for service in chosen if service.seen]),
            ("_unseen", [service for service in chosen if not service.seen]),
        ):
            figures |= {f"{lang}_{key}{name}": value for key, value in _figures(part).items()}
        # What a rule that is always breached would have: most services have most categories.
        share = sum(len(service.labelled) for service in chosen) / (len(chosen) * len(RULES))
        figures[f"{lang}_service_f1_of_always"] = round(2 * share / (1 + share), 4)
    print(json.dumps(figures))
    return 0


def _service(row: dict[str, Any], *, seen: bool) -> Service:
    text = (DATA / row["file"]).read_bytes().decode()
    playbook = included_playbook("consumer_terms")
    document = DocumentText("txt", text, (Page(1, 0, len(text)),), (Paragraph(0, len(text)),))
    findings = scan(text, playbook, device="cpu").findings
    judged = {item.rule.id: item for item in judge(playbook, document, findings, present={})}
    breached = {ident for ident, item in judged.items() if item.outcome == "breached"}
    labels: dict[str, list[tuple[Span, int]]] = {category: [] for category in RULES}
    for span in row["spans"]:
        labels[span["category"]].append(((span["start"], span["end"]), span["level"]))
    found: dict[str, int] = {}
    spans: dict[str, Counter[str]] = {}
    for category, rules in RULES.items():
        broken = [judged[rule] for rule in rules if rule in breached]
        if broken:
            found[category] = 3 if any(item.rule.severity == "high" for item in broken) else 2
        places = sorted({span for item in broken for span in item.spans})
        spans[category] = _matched(places, [span for span, level in labels[category] if level > 1])
    labelled = {name: max(level for _, level in kept) for name, kept in labels.items() if any(lv > 1 for _, lv in kept)}
    score = assess(playbook, findings, breached=breached).score
    return Service(row["lang"], seen, labelled, found, spans, score)


def _matched(places: Sequence[Span], labelled: Sequence[Span]) -> Counter[str]:
    """``found``, ``right`` of those, ``labelled``, and ``met`` of those."""
    pairs = [(place, label) for place in places for label in labelled if _same(place, label)]
    return Counter(
        found=len(places), right=len({p for p, _ in pairs}), labelled=len(labelled), met=len({q for _, q in pairs})
    )


def _same(one: Span, other: Span) -> bool:
    overlap = min(one[1], other[1]) - max(one[0], other[0])
    return overlap > 0 and overlap * 2 >= min(one[1] - one[0], other[1] - other[0])


def _spans(services: Sequence[Service], categories: Sequence[str]) -> Counter[str]:
    return sum((service.spans[category] for service in services for category in categories), Counter[str]())


def _presence(services: Sequence[Service], categories: Sequence[str]) -> Counter[str]:
    counts = Counter[str]()
    for service in services:
        for category in categories:
            said, gold = category in service.found, category in service.labelled
            counts += Counter(found=said, labelled=gold, right=said and gold, met=said and gold)
    return counts


def _figures(services: Sequence[Service]) -> dict[str, float]:
    names = list(RULES)
    figures: dict[str, float] = {}
    for kind, counts in (("span", _spans), ("service", _presence)):
        precision, recall, f1 = _measures(counts(services, names))
        macro = sum(_measures(counts(services, [name]))[2] for name in names) / len(names)
        figures |= {f"{kind}_precision": precision, f"{kind}_recall": recall}
        figures |= {f"{kind}_f1": f1, f"{kind}_macro_f1": macro}
    both = [(s.labelled[name], s.found[name]) for s in services for name in s.labelled if name in s.found]
    figures["level_accuracy"] = sum(gold == said for gold, said in both) / len(both)
    gold = [float(sum(service.labelled.values())) for service in services]
    figures["risk_rank_correlation"] = _spearman(gold, [service.score for service in services])
    return {name: round(value, 4) for name, value in figures.items()}


def _measures(counts: Counter[str]) -> tuple[float, float, float]:
    precision = counts["right"] / counts["found"] if counts["found"] else 0.0
    recall = counts["met"] / counts["labelled"] if counts["labelled"] else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _shown(counts: Counter[str]) -> str:
    return "P {:.2f} R {:.2f} F1 {:.2f}".format(*_measures(counts))


def _spearman(one: Sequence[float], other: Sequence[float]) -> float:
    left, right = _ranks(one), _ranks(other)
    mean = (len(one) - 1) / 2
    product = sum((a - mean) * (b - mean) for a, b in zip(left, right, strict=True))
    size = sum((a - mean) ** 2 for a in left) * sum((b - mean) ** 2 for b in right)
    return product / size**0.5 if size else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 0, equal values sharing their mean rank."""
    return [sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values]


if __name__ == "__main__":
    sys.exit(main())
