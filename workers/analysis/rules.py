"""Judges a playbook's rules on a document: met, breached or unknown, with the places and the amounts that decided.

``services/rules.py`` has what a rule may say. ``required`` also counts what other means than the scan have found; the
other kinds look at sentences, which only the scan's findings have.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from typing import Literal as OneOf

from services.findings import Finding
from services.patterns import Pattern
from services.playbooks import Playbook, canonical, fold
from services.rules import Rule
from services.texts import DocumentText
from workers.analysis.passages import Passages
from workers.analysis.quantities import Quantity, comparable, compare, quantities

Outcome = OneOf["breached", "unknown", "met"]
Span = tuple[int, int]

ORDER: Final[tuple[Outcome, ...]] = ("breached", "unknown", "met")
"""The outcomes, what needs a person first."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """``found`` says in words what decided; ``spans`` of the original text show it, none where nothing was found."""

    rule: Rule
    outcome: Outcome
    found: str
    spans: tuple[Span, ...] = ()


@dataclass(slots=True)
class _Place:
    """A sentence with findings of one category; ``anchors`` are the spans in it from which amounts are sought."""

    start: int
    end: int
    anchors: list[Span] = field(default_factory=list[Span])

    @property
    def span(self) -> Span:
        return self.start, self.end


def judge(
    playbook: Playbook,
    document: DocumentText,
    findings: Iterable[Finding],
    *,
    present: Mapping[str, Sequence[Span]],
    check: Callable[[], None] = lambda: None,
) -> tuple[Judgement, ...]:
    """A judgement for each rule, in the playbook's order.

    ``present`` has the spans of categories (by id) that other means than the scan have found. ``check`` is called for
    each place looked at, and may raise to stop.
    """
    ruled = {rule.category for rule in playbook.rules}
    titles = {category.id: category.title for category in playbook.categories}
    passages = Passages(document)
    places: defaultdict[str, dict[Span, _Place]] = defaultdict(dict)
    for finding in findings:
        if finding.category in ruled:
            check()
            span = passages.around(finding.start, finding.end)
            place = places[finding.category].setdefault(span, _Place(*span))
            place.anchors.append((finding.start, finding.end))
    judgements: list[Judgement] = []
    for rule in playbook.rules:
        chosen = [kept for place in places[rule.category].values() if (kept := _admitted(document, rule, place, check))]
        title = titles[rule.category]
        if rule.kind == "required":
            judgements.append(_required(rule, title, chosen, present.get(rule.category, ())))
        elif rule.kind == "forbidden":
            judgements.append(_forbidden(rule, title, chosen))
        elif rule.kind == "limit":
            judgements.append(_limit(rule, title, chosen, document))
        else:
            judgements.append(_one_of(rule, title, chosen, document))
    return tuple(judgements)


def _admitted(document: DocumentText, rule: Rule, place: _Place, check: Callable[[], None]) -> _Place | None:
    """The place if ``where``, ``also`` and ``unless`` admit it; its anchors are then what ``where`` matches, if any."""
    if not rule.where and not rule.also and not rule.unless:
        return place
    check()
    flat, offsets = _flat(document.text, place)
    if any(pattern.compiled().search(flat) for pattern in rule.unless):
        return None
    if rule.also and not any(pattern.compiled().search(flat) for pattern in rule.also):
        return None
    if not rule.where:
        return place
    anchors = [(offsets[m.start()], offsets[m.end() - 1] + 1) for m in _matches(rule.where, flat)]
    return _Place(place.start, place.end, anchors) if anchors else None


def _flat(text: str, place: _Place) -> tuple[str, list[int]]:
    """The sentence with single blanks, and where each of its characters stands in the text."""
    chars: list[str] = []
    offsets: list[int] = []
    for match in re.finditer(r"\s+|\S", text[place.start : place.end]):
        chars.append(" " if match[0].isspace() else match[0])
        offsets.append(place.start + match.start())
    return "".join(chars), offsets


def _matches(patterns: Sequence[Pattern], flat: str) -> list[re.Match[str]]:
    return [match for pattern in patterns for match in pattern.compiled().finditer(flat)]


def _required(rule: Rule, title: str, places: list[_Place], elsewhere: Sequence[Span]) -> Judgement:
    if places:
        return Judgement(rule, "met", f"{title} was found", tuple(place.span for place in places))
    narrowed = rule.where or rule.also or rule.unless
    if elsewhere and not narrowed:
        return Judgement(rule, "met", f"{title} was found", tuple(elsewhere))
    what = "no such place of" if narrowed else "nothing of"
    return Judgement(rule, "breached", f"{what} {title} was found")


def _forbidden(rule: Rule, title: str, places: list[_Place]) -> Judgement:
    if not places:
        return Judgement(rule, "met", f"no such place of {title} was found")
    return Judgement(rule, "breached", f"{title} was found", tuple(place.span for place in places))


def _one_of(rule: Rule, title: str, places: list[_Place], document: DocumentText) -> Judgement:
    if not places:
        return Judgement(rule, "unknown", f"nothing of {title} was found")
    names = re.compile("|".join(rf"(?<!\w){re.escape(canonical(value))}(?!\w)" for value in rule.values))
    naming = [place for place in places if names.search(fold(_flat(document.text, place)[0]))]
    if naming:
        return Judgement(rule, "met", f"{title} names one of the values", tuple(place.span for place in naming))
    spans = tuple(place.span for place in places)
    return Judgement(rule, "breached", f"{title} names none of: {', '.join(rule.values)}", spans)


def _limit(rule: Rule, title: str, places: list[_Place], document: DocumentText) -> Judgement:
    found: dict[Outcome, list[tuple[Span, str]]] = {outcome: [] for outcome in ORDER}
    for place in places:
        nearest = _nearest(rule, place, document.text)
        if nearest:
            quantity, anchor = nearest
            span = min(quantity.start, anchor[0]), max(quantity.end, anchor[1])
            words = " ".join(document.text[quantity.start : quantity.end].split())
            found[_within(rule, quantity)].append((span, words))
    bounds = [f"at least {rule.at_least}" if rule.at_least else "", f"at most {rule.at_most}" if rule.at_most else ""]
    limit = " and ".join(filter(None, bounds))
    for outcome in ORDER:
        if decided := found[outcome]:
            words = ", ".join(dict.fromkeys(f"“{words}”" for _, words in decided))
            doubt = "cannot be compared for certain; " if outcome == "unknown" else ""
            spans = tuple(dict.fromkeys(span for span, _ in decided))
            return Judgement(rule, outcome, f"{words}: {doubt}the limit is {limit}", spans)
    what = f"no amount stands with {title}" if places else f"nothing of {title} was found"
    return Judgement(rule, "unknown", f"{what}; the limit is {limit}", tuple(place.span for place in places))


def _nearest(rule: Rule, place: _Place, text: str) -> tuple[Quantity, Span] | None:
    """The comparable amount in a sentence that is nearest to an anchor, and that anchor; the earlier of two."""
    limit = rule.at_most or rule.at_least
    best: tuple[int, int, Quantity, Span] | None = None
    for quantity in quantities(text[place.start : place.end]):
        if limit is None or not comparable(quantity, limit):
            continue
        start, end = place.start + quantity.start, place.start + quantity.end
        placed = Quantity(start, end, quantity.low, quantity.high, quantity.unit)
        for anchor in place.anchors:
            gap = max(start - anchor[1], anchor[0] - end, 0)
            if best is None or (gap, start) < best[:2]:
                best = gap, start, placed, anchor
    return best[2:] if best else None


def _within(rule: Rule, quantity: Quantity) -> Outcome:
    least = compare(quantity, rule.at_least) if rule.at_least else (0, 0)
    most = compare(quantity, rule.at_most) if rule.at_most else (0, 0)
    if least[1] < 0 or most[0] > 0:
        return "breached"
    return "met" if least[0] >= 0 and most[1] <= 0 else "unknown"
