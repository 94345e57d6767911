r"""Playbooks: which clauses and personal data a firm looks for, by which terms and how much they weigh.

A playbook is a YAML file (:func:`load_playbook`); those that come along stand beside this file::

    name: leases                    # letters, digits, - and _
    title: Commercial leases
    categories:
      - id: rent_review
        title: Rent review
        description: When and how the rent changes.   # optional
        kind: clause                # personal_data, or anchor: found for rules alone; default clause
        weight: 0.4                 # 0 to 1: share in the risk
        required: true              # reported as missing when nothing is found; default false
        literals:                   # found whatever their case and white space
          - rent review
          - {text: indexat, whole_words: false}     # inside words too
        patterns: ['\brent of [£$€]\d{1,9}']        # see services/patterns.py
        risk: {present: Check the index., missing: The rent never changes.}     # optional
    rules: []                       # what must or must not be and limits: see services/rules.py

A literal stands where the folded text (:func:`fold`, one character for one character) equals it, any run of white
space counting as one blank. With ``whole_words``, where a literal begins or ends with a word character (``\w``), the
text beside it must not go on with one. All occurrences count, overlapping ones too.
A pattern's occurrences are those of ``re.finditer`` with ``IGNORECASE``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final, TypeAlias, TypeVar, cast
from typing import Literal as OneOf

import yaml

from services.patterns import Pattern
from services.playbook_yaml import Mapping, PatternReader, checked, compose, refusal, scalar
from services.rules import Rule, read_rules

MAX_LITERAL = 200
MAX_LITERALS = 4_000_000
MAX_PATTERNS = 100_000
MAX_CATEGORIES = 1000
"""Limits: characters of one literal, of all literals and of all patterns together, categories of a playbook."""
INCLUDED: Final = ("default", "nda", "consumer_terms")
"""The names of the playbooks that come with Casemill, first the one that is taken where none is named."""

Kind: TypeAlias = OneOf["clause", "personal_data", "anchor"]
_Term = TypeVar("_Term")


def fold(text: str) -> str:
    """Lower case by single characters, so that offsets stay: ``İ`` becomes ``i``, a final ``Σ`` becomes ``σ``."""
    return text.replace("İ", "i").replace("Σ", "σ").lower()


def canonical(text: str) -> str:
    """The form in which literals are compared: folded, each run of white space one blank, none at the ends."""
    return " ".join(fold(text).split())


@dataclass(frozen=True, slots=True)
class Literal:
    """A term that is a plain phrase; ``text`` as written in the playbook."""

    text: str
    whole_words: bool = True


@dataclass(frozen=True, slots=True)
class Category:
    """One kind of clause or of personal data, with the terms that show it."""

    id: str
    title: str
    description: str
    kind: Kind
    weight: float
    required: bool
    literals: tuple[Literal, ...]
    patterns: tuple[Pattern, ...]
    risk_present: str = ""
    risk_missing: str = ""

    def content(self) -> dict[str, Any]:
        """Everything the category says, as JSON values."""
        return {
            **{name: getattr(self, name) for name in _PLAIN_FIELDS},
            "literals": [asdict(literal) for literal in self.literals],
            "patterns": [pattern.source for pattern in self.patterns],
        }


@dataclass(frozen=True, eq=False)
class Playbook:
    """A checked playbook; equal ``version`` (SHA-256 of its content, in hexadecimal) means equal playbook."""

    name: str
    title: str
    categories: tuple[Category, ...]
    rules: tuple[Rule, ...] = ()
    version: str = field(init=False)

    def __post_init__(self) -> None:
        categories = [category.content() for category in self.categories]
        content = [self.name, self.title, categories, [rule.content() for rule in self.rules]]
        text = json.dumps(content, sort_keys=True)
        object.__setattr__(self, "version", hashlib.sha256(text.encode()).hexdigest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Playbook) and other.version == self.version

    def __hash__(self) -> int:
        return hash(self.version)


_PLAIN_FIELDS = ("id", "title", "description", "kind", "weight", "required", "risk_present", "risk_missing")


def default_playbook() -> Playbook:
    """The playbook that is taken where none is named."""
    return included_playbook(INCLUDED[0])


def own_clauses(playbook: Playbook) -> set[str]:
    """Ids of the clauses that the default playbook has not, and with it no trained head."""
    return _clauses(playbook) - _clauses(default_playbook())


def _clauses(playbook: Playbook) -> set[str]:
    return {category.id for category in playbook.categories if category.kind == "clause"}


@cache
def included_playbook(name: str) -> Playbook:
    """A playbook of :data:`INCLUDED`."""
    return load_playbook(included_text(name))


@cache
def included_text(name: str) -> str:
    """The YAML of :func:`included_playbook`."""
    return resources.files("services").joinpath(f"{name}_playbook.yaml").read_text(encoding="utf-8")


def load_playbook(data: bytes | str) -> Playbook:
    """Read and check a playbook.

    Raises :class:`InvalidRequest` with code ``playbook_invalid``, naming the line and the reason.
    """
    return _read_playbook(compose(data))


def _read_playbook(root: yaml.Node) -> Playbook:
    top = Mapping(root, "a playbook", "name title categories rules")
    name = checked(top.need("name"), "`name`", r"[A-Za-z0-9_-]{1,64}", "up to 64 letters, digits, - and _")
    categories: dict[str, Category] = {}
    titles: set[str] = set()
    literals = patterns = 0
    reader = PatternReader()
    for node in top.items("categories"):
        category = _read_category(node, reader)
        if category.id in categories:
            raise refusal(node, f"the id `{category.id}` stands twice")
        if category.title in titles:
            raise refusal(node, f"the title `{category.title}` stands at two categories")
        literals += sum(len(term.text) for term in category.literals)
        patterns += sum(len(pattern.source) for pattern in category.patterns)
        if literals > MAX_LITERALS:
            raise refusal(node, f"the literals together are longer than {MAX_LITERALS} characters; split the playbook")
        if patterns > MAX_PATTERNS:
            raise refusal(node, f"the patterns together are longer than {MAX_PATTERNS} characters; split the playbook")
        if len(categories) == MAX_CATEGORIES:
            raise refusal(node, f"a playbook has {MAX_CATEGORIES} categories at most; split it")
        categories[category.id] = category
        titles.add(category.title)
    if not categories:
        raise refusal(root, "the playbook has no categories")
    rules = read_rules(top.items("rules"), categories, reader)
    return Playbook(name=name, title=top.text("title", name), categories=tuple(categories.values()), rules=rules)


def _read_category(node: yaml.Node, reader: PatternReader) -> Category:
    raw = Mapping(node, "a category", "id title description kind weight required literals patterns risk")
    ident = checked(raw.need("id"), "`id`", r"[a-z0-9_]{1,64}", "up to 64 lower-case letters, digits and _")
    kind = cast(Kind, raw.choice("kind", ("clause", "personal_data", "anchor"), "clause"))
    weight = checked(raw.need("weight"), "`weight`", r"0|1|0?\.[0-9]{1,9}|1\.0{1,9}", "a number from 0 to 1")
    literals = _distinct(raw.items("literals"), _read_literal, lambda item: canonical(item.text))
    patterns = _distinct(raw.items("patterns"), reader.read, lambda item: item.source)
    written = {literal.text for literal in literals}
    for item, pattern in zip(raw.items("patterns"), patterns, strict=True):
        if pattern.source in written:
            raise refusal(item, f"the term `{pattern.source}` stands among the literals too")
    if not literals and not patterns:
        raise refusal(node, f"the category `{ident}` has no terms; give it literals or patterns")
    risk = Mapping(raw.values["risk"], "`risk`", "present missing") if "risk" in raw.values else None
    return Category(
        id=ident,
        title=raw.text("title"),
        description=raw.text("description", ""),
        kind=kind,
        weight=float(weight),
        required=raw.flag("required", False),
        literals=literals,
        patterns=patterns,
        risk_present=risk.text("present", "") if risk else "",
        risk_missing=risk.text("missing", "") if risk else "",
    )


def _distinct(
    nodes: list[yaml.Node], read: Callable[[yaml.Node], _Term], same: Callable[[_Term], str]
) -> tuple[_Term, ...]:
    terms: dict[str, _Term] = {}
    for node in nodes:
        term = read(node)
        if same(term) in terms:
            raise refusal(node, f"the term `{same(term)}` stands twice in this category")
        terms[same(term)] = term
    return tuple(terms.values())


def _read_literal(node: yaml.Node) -> Literal:
    if isinstance(node, yaml.MappingNode):
        raw = Mapping(node, "a literal", "text whole_words")
        literal = Literal(raw.text("text"), raw.flag("whole_words", True))
    else:
        literal = Literal(scalar(node, "a literal"))
    if len(literal.text) > MAX_LITERAL:
        raise refusal(node, f"a literal has {len(literal.text)} characters, the limit is {MAX_LITERAL}")
    return literal
