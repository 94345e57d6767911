r"""Playbooks: which clauses and personal data a firm looks for, by which terms and how much they weigh.

A playbook is a YAML file (:func:`load_playbook`); ``services/default_playbook.yaml`` is the one that comes along::

    name: leases                    # letters, digits, - and _
    title: Commercial leases
    categories:
      - id: rent_review
        title: Rent review
        description: When and how the rent changes.   # optional
        kind: clause                # or personal_data; default clause
        weight: 0.4                 # 0 to 1: share in the risk
        required: true              # reported as missing when nothing is found; default false
        literals:                   # found whatever their case and white space
          - rent review
          - {text: indexat, whole_words: false}     # inside words too
        patterns: ['\brent of [£$€]\d{1,9}']        # see services/patterns.py
        risk: {present: Check the index., missing: The rent never changes.}     # optional

A literal stands where the folded text (:func:`fold`, one character for one character) equals it, any run of white
space counting as one blank. With ``whole_words``, where a literal begins or ends with a word character (``\w``), the
text beside it must not go on with one. All occurrences count, overlapping ones too.
A pattern's occurrences are those of ``re.finditer`` with ``IGNORECASE``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from typing import Literal as OneOf
from typing import TypeAlias, TypeVar

import yaml

from services.errors import InvalidRequest
from services.patterns import Pattern, PatternError, parse_pattern

MAX_BYTES = 1 << 20
MAX_LITERAL = 200
MAX_TOTAL = 100_000
"""Limits: bytes of a playbook, characters of one literal and of all terms together."""

Kind: TypeAlias = OneOf["clause", "personal_data"]
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


@dataclass(frozen=True, eq=False)
class Playbook:
    """A checked playbook; equal ``version`` (SHA-256 of its content, in hexadecimal) means equal playbook."""

    name: str
    title: str
    categories: tuple[Category, ...]
    version: str = field(init=False)

    def __post_init__(self) -> None:
        content: list[dict[str, object]] = []
        for category in self.categories:
            patterns = [pattern.source for pattern in category.patterns]
            literals = [asdict(literal) for literal in category.literals]
            fields = {name: getattr(category, name) for name in _PLAIN_FIELDS}
            content.append({**fields, "literals": literals, "patterns": patterns})
        text = json.dumps([self.name, self.title, content], sort_keys=True)
        object.__setattr__(self, "version", hashlib.sha256(text.encode()).hexdigest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Playbook) and other.version == self.version

    def __hash__(self) -> int:
        return hash(self.version)


_PLAIN_FIELDS = ("id", "title", "description", "kind", "weight", "required", "risk_present", "risk_missing")


@cache
def default_playbook() -> Playbook:
    """The playbook that comes with Casemill."""
    return load_playbook(resources.files("services").joinpath("default_playbook.yaml").read_bytes())


def load_playbook(data: bytes | str) -> Playbook:
    """Read and check a playbook.

    Raises :class:`InvalidRequest` with code ``playbook_invalid``, naming the line and the reason.
    """
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"the playbook is larger than {MAX_BYTES} bytes", code="playbook_invalid")
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the playbook is not UTF-8: {error}", code="playbook_invalid") from None
    except RecursionError:
        raise InvalidRequest("the playbook is nested too deeply", code="playbook_invalid") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidRequest(f"line {line}: not YAML: {error.problem}", code="playbook_invalid") from None
    except yaml.YAMLError as error:
        raise InvalidRequest(f"not YAML: {error}", code="playbook_invalid") from None
    if root is None:
        raise InvalidRequest("line 1: the playbook is empty", code="playbook_invalid")
    return _read_playbook(root)


def _bad(node: yaml.Node, reason: str) -> InvalidRequest:
    return InvalidRequest(f"line {node.start_mark.line + 1}: {reason}", code="playbook_invalid")


class _Mapping:
    """A YAML mapping whose keys are taken one by one; keys nobody knows are refused when it is made."""

    def __init__(self, node: yaml.Node, what: str, known: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            raise _bad(node, f"{what} must be a mapping with the keys {known.replace(' ', ', ')}")
        self.node = node
        self.what = what
        self.values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = _scalar(key, f"a key of {what}")
            if name not in known.split():
                raise _bad(key, f"{what} has no key `{name}`; known are {known.replace(' ', ', ')}")
            if name in self.values:
                raise _bad(key, f"`{name}` stands twice")
            self.values[name] = value

    def need(self, key: str) -> yaml.Node:
        if key not in self.values:
            raise _bad(self.node, f"{self.what} needs `{key}`")
        return self.values[key]

    def text(self, key: str, default: str | None = None) -> str:
        if default is not None and key not in self.values:
            return default
        return _scalar(self.need(key), f"`{key}`")

    def flag(self, key: str, default: bool) -> bool:
        word = self.text(key, str(default)).lower()
        if word not in ("true", "false"):
            raise _bad(self.values[key], f"`{key}` must be true or false, not `{word}`")
        return word == "true"

    def items(self, key: str) -> list[yaml.Node]:
        node = self.values.get(key)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise _bad(node, f"`{key}` must be a list")
        return list(node.value)


def _scalar(node: yaml.Node, what: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
        raise _bad(node, f"{what} must be a text")
    value = str(node.value)
    if not value.strip():
        raise _bad(node, f"{what} is empty")
    return value


def _read_playbook(root: yaml.Node) -> Playbook:
    top = _Mapping(root, "a playbook", "name title categories")
    name = _checked(top.need("name"), "`name`", r"[A-Za-z0-9_-]{1,64}", "up to 64 letters, digits, - and _")
    categories: list[Category] = []
    total = 0
    for node in top.items("categories"):
        category = _read_category(node)
        if any(category.id == other.id for other in categories):
            raise _bad(node, f"the id `{category.id}` stands twice")
        total += sum(len(term.text) for term in category.literals)
        total += sum(len(pattern.source) for pattern in category.patterns)
        if total > MAX_TOTAL:
            raise _bad(node, f"the terms together are longer than {MAX_TOTAL} characters; split the playbook")
        categories.append(category)
    if not categories:
        raise _bad(root, "the playbook has no categories")
    return Playbook(name=name, title=top.text("title", name), categories=tuple(categories))


def _checked(node: yaml.Node, what: str, form: str, words: str) -> str:
    value = _scalar(node, what)
    if not re.fullmatch(form, value):
        raise _bad(node, f"{what} must be {words}, not `{value}`")
    return value


def _read_category(node: yaml.Node) -> Category:
    raw = _Mapping(node, "a category", "id title description kind weight required literals patterns risk")
    ident = _checked(raw.need("id"), "`id`", r"[a-z0-9_]{1,64}", "up to 64 lower-case letters, digits and _")
    kind = raw.text("kind", "clause")
    if kind not in ("clause", "personal_data"):
        raise _bad(raw.need("kind"), f"`kind` must be clause or personal_data, not `{kind}`")
    weight = _checked(raw.need("weight"), "`weight`", r"0|1|0?\.[0-9]{1,9}|1\.0{1,9}", "a number from 0 to 1")
    literals = _distinct(raw.items("literals"), _read_literal, lambda item: canonical(item.text))
    patterns = _distinct(raw.items("patterns"), _read_pattern, lambda item: item.source)
    written = {literal.text for literal in literals}
    for item, pattern in zip(raw.items("patterns"), patterns, strict=True):
        if pattern.source in written:
            raise _bad(item, f"the term `{pattern.source}` stands among the literals too")
    if not literals and not patterns:
        raise _bad(node, f"the category `{ident}` has no terms; give it literals or patterns")
    risk = _Mapping(raw.values["risk"], "`risk`", "present missing") if "risk" in raw.values else None
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
            raise _bad(node, f"the term `{same(term)}` stands twice in this category")
        terms[same(term)] = term
    return tuple(terms.values())


def _read_literal(node: yaml.Node) -> Literal:
    if isinstance(node, yaml.MappingNode):
        raw = _Mapping(node, "a literal", "text whole_words")
        literal = Literal(raw.text("text"), raw.flag("whole_words", True))
    else:
        literal = Literal(_scalar(node, "a literal"))
    if len(literal.text) > MAX_LITERAL:
        raise _bad(node, f"a literal has {len(literal.text)} characters, the limit is {MAX_LITERAL}")
    return literal


def _read_pattern(node: yaml.Node) -> Pattern:
    try:
        return parse_pattern(_scalar(node, "a pattern"))
    except PatternError as error:
        raise _bad(node, f"pattern `{node.value}`: {error}") from None
