r"""Rules of a playbook: what a contract must say, must not say, and within which limits, as declared in its YAML.

A rule looks at the places where a category was found, each the sentence around a finding::

    rules:
      - id: renewal_notice
        title: Notice against renewal
        kind: limit                    # required, forbidden, limit or one_of
        category: notice_period_to_terminate_renewal
        severity: medium               # low, medium or high: what a breach weighs in the risk, see SEVERITIES
        at_most: 90 days               # limit: at_most, at_least or both; UNITS has the units
        reason: A long notice is easily missed.
        where: ['\bnot to renew\b']  # optional: only sentences that one of these patterns matches
        also: ['\bwritten\b']       # optional: of those, only sentences that one of these matches too
        unless: ['\bat any time\b']  # optional: no sentence that one of these matches

- ``required`` is breached where there is no such place, ``forbidden`` where there is one.
- ``limit`` compares the amount nearest to the finding (nearest to what ``where`` matches, if given) in its sentence.
- ``one_of`` has ``values``, one of which a place must name: ``values: [England and Wales, Scotland]``.

A ``limit`` or ``one_of`` that finds nothing to judge is ``unknown``. Patterns are those of ``services/patterns.py``; a
blank in them stands for any run of white space. ``workers/analysis/rules.py`` judges.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, cast
from typing import Literal as OneOf

import yaml

from services.patterns import Pattern
from services.playbook_yaml import Mapping, PatternReader, checked, refusal, scalar

RuleKind = OneOf["required", "forbidden", "limit", "one_of"]
Severity = OneOf["low", "medium", "high"]
Unit = OneOf["hours", "days", "business days", "weeks", "months", "years", "percent"]

KINDS: Final = ("required", "forbidden", "limit", "one_of")
SEVERITIES: Final[dict[Severity, float]] = {"low": 0.25, "medium": 0.5, "high": 1.0}
"""The weight of a breach in the risk, on the scale of the categories' weights."""
UNITS: Final[tuple[Unit, ...]] = ("hours", "days", "business days", "weeks", "months", "years", "percent")
MAX_RULES: Final = 200
MAX_PATTERNS: Final = 20_000
"""Rules of a playbook, and characters of all their patterns and values together."""

_KEYS: Final = "id title kind category severity reason where also unless at_least at_most values"
_AMOUNT: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,4})?) ?(%|[a-z]+(?: days?)?)")
_VALUE_CHARS: Final = 100


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of a unit, as in ``30 days``."""

    count: float
    unit: Unit

    def __str__(self) -> str:
        return f"{self.count:g}%" if self.unit == "percent" else f"{self.count:g} {self.unit}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; ``category`` is a category's id of the same playbook."""

    id: str
    title: str
    kind: RuleKind
    category: str
    severity: Severity
    reason: str
    where: tuple[Pattern, ...] = ()
    also: tuple[Pattern, ...] = ()
    unless: tuple[Pattern, ...] = ()
    at_least: Amount | None = None
    at_most: Amount | None = None
    values: tuple[str, ...] = ()

    @property
    def weight(self) -> float:
        """What a breach adds to the risk before it is divided by all weights."""
        return SEVERITIES[self.severity]

    def content(self) -> dict[str, Any]:
        """Everything the rule says, as JSON values."""
        return {
            "id": self.id,
            "title": self.title,
            "kind": self.kind,
            "category": self.category,
            "severity": self.severity,
            "reason": self.reason,
            "where": [item.source for item in self.where],
            # Versions that were kept before rules had this key stay what they are.
            **({"also": [item.source for item in self.also]} if self.also else {}),
            "unless": [item.source for item in self.unless],
            "at_least": str(self.at_least) if self.at_least else None,
            "at_most": str(self.at_most) if self.at_most else None,
            "values": list(self.values),
        }


def read_rules(nodes: list[yaml.Node], categories: Collection[str], patterns: PatternReader) -> tuple[Rule, ...]:
    """The rules of a playbook with these category ids; raises ``InvalidRequest`` naming line and reason."""
    rules: dict[str, Rule] = {}
    total = 0
    for node in nodes:
        rule = _read_rule(node, categories, patterns)
        if rule.id in rules:
            raise refusal(node, f"the rule `{rule.id}` stands twice")
        if any(rule.title == other.title for other in rules.values()):
            raise refusal(node, f"the title `{rule.title}` stands at two rules")
        total += sum(len(item.source) for item in rule.where + rule.also + rule.unless) + sum(map(len, rule.values))
        if total > MAX_PATTERNS:
            raise refusal(node, f"patterns and values of the rules are longer than {MAX_PATTERNS} characters together")
        if len(rules) == MAX_RULES:
            raise refusal(node, f"a playbook has {MAX_RULES} rules at most; split it")
        rules[rule.id] = rule
    return tuple(rules.values())


def _read_rule(node: yaml.Node, categories: Collection[str], patterns: PatternReader) -> Rule:
    raw = Mapping(node, "a rule", _KEYS)
    ident = checked(raw.need("id"), "`id`", r"[a-z0-9_]{1,64}", "up to 64 lower-case letters, digits and _")
    kind = cast(RuleKind, raw.choice("kind", KINDS))
    category = raw.text("category")
    if category not in categories:
        raise refusal(raw.need("category"), f"the rule `{ident}` names the category `{category}`, which is not there")
    _check_keys(raw, ident, kind)
    least, most = (_read_amount(raw.values[key], key) if key in raw.values else None for key in ("at_least", "at_most"))
    if least and most and (least.unit != most.unit or least.count > most.count):
        raise refusal(raw.need("at_most"), "`at_least` and `at_most` need one unit, and the larger number at most")
    return Rule(
        id=ident,
        title=raw.text("title"),
        kind=kind,
        category=category,
        severity=cast(Severity, raw.choice("severity", tuple(SEVERITIES))),
        reason=raw.text("reason"),
        where=tuple(map(patterns.read, raw.items("where"))),
        also=tuple(map(patterns.read, raw.items("also"))),
        unless=tuple(map(patterns.read, raw.items("unless"))),
        at_least=least,
        at_most=most,
        values=tuple(_read_value(item) for item in raw.items("values")),
    )


def _check_keys(raw: Mapping, ident: str, kind: RuleKind) -> None:
    """Each kind has the keys it works with, and no others."""
    limits = [key for key in ("at_least", "at_most") if key in raw.values]
    if kind == "limit" and not limits:
        raise refusal(raw.node, f"the limit `{ident}` needs `at_least` or `at_most`")
    if kind == "one_of" and not raw.items("values"):
        raise refusal(raw.node, f"the rule `{ident}` needs `values`, a list with one at least")
    for key in limits if kind != "limit" else ():
        raise refusal(raw.values[key], f"`{key}` goes with `kind: limit`, not with {kind}")
    if kind != "one_of" and "values" in raw.values:
        raise refusal(raw.values["values"], f"`values` goes with `kind: one_of`, not with {kind}")


def _read_amount(node: yaml.Node, key: str) -> Amount:
    value = scalar(node, f"`{key}`")
    found = _AMOUNT.fullmatch(value)
    if found:
        for unit in UNITS:
            if found[2] in (unit, unit.removesuffix("s")) or (found[2] == "%" and unit == "percent"):
                return Amount(float(found[1]), unit)
    raise refusal(node, f"`{key}` must be a number and one of {', '.join(UNITS)}, as in `30 days`, not `{value}`")


def _read_value(node: yaml.Node) -> str:
    value = scalar(node, "a value")
    if len(value) > _VALUE_CHARS:
        raise refusal(node, f"a value has {len(value)} characters, the limit is {_VALUE_CHARS}")
    return value
