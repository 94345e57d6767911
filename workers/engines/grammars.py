"""What text can be held to: JSON schemas, Lark grammars and regular expressions, checked before anything is queued.

What a schema asks for is enforced or refused by its name (`schema_unsupported`), never silently ignored.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from services.errors import InvalidRequest
from workers.engines.base import Sampling
from workers.engines.conformance import validate

MAX_BYTES: Final = 64 * 1024
MAX_SCHEMA_DEPTH: Final = 48
# Compact separators with a space, as most training text has them; free white space lets small models idle in it.
COMPACT: Final = {
    "lenient": False,
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": False,
}


@dataclass(frozen=True, slots=True)
class Grammar:
    """What one text is held to: ``text`` as llguidance reads it, and the ``schema`` that the finished JSON satisfies.

    ``name`` is how errors call it.
    """

    name: str
    text: str
    schema: dict[str, Any] | None = None

    def validate(self, text: str) -> None:
        """Check ``text`` against the schema, if any. Raises as :func:`~workers.engines.conformance.validate`."""
        if self.schema is not None:
            validate(self.schema, text)


def grammar_of(sampling: Sampling) -> Grammar | None:
    """The checked grammar of ``sampling``; ``None`` where the text is free.

    Raises ``InvalidRequest`` ``schema_unsupported``, ``schema_invalid`` or ``grammar_invalid``.
    """
    if sampling.json_schema is not None:
        return Grammar("The JSON schema", check_schema(sampling.json_schema), sampling.json_schema)
    if sampling.grammar is not None:
        return _checked("The grammar", sampling.grammar, "grammar_from_lark")
    return None if sampling.regex is None else _checked("The regular expression", sampling.regex, "grammar_from_regex")


def _checked(name: str, definition: str, compiler: str) -> Grammar:
    if len(definition) > MAX_BYTES:
        raise InvalidRequest(f"{name} is longer than {MAX_BYTES:,} characters.", code="grammar_invalid")
    try:
        definition.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name} is no Unicode text: {error}.", code="grammar_invalid") from error
    llguidance: Any = importlib.import_module("llguidance")
    grammar = Grammar(name, str(getattr(llguidance.LLMatcher, compiler)(definition)))
    problems = _problems(grammar.text)
    if problems:
        raise InvalidRequest(f"{name} cannot be held to: {problems}.", code="grammar_invalid")
    return grammar


def _problems(grammar: str) -> str:
    """What llguidance says against ``grammar``; warnings count."""
    llguidance: Any = importlib.import_module("llguidance")
    _, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, limits=limits())
    return "; ".join(str(message) for message in messages)[:1000]


def check_schema(schema: dict[str, Any]) -> str:
    """The llguidance grammar of ``schema``. Raises ``InvalidRequest`` ``schema_unsupported`` or ``schema_invalid``."""
    if _depth(schema) > MAX_SCHEMA_DEPTH:
        raise InvalidRequest(f"The JSON schema is nested deeper than {MAX_SCHEMA_DEPTH}.", code="schema_unsupported")
    try:
        text = json.dumps(schema, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"The JSON schema is no JSON: {error}.", code="schema_invalid") from error
    if size > MAX_BYTES:
        raise InvalidRequest(f"The JSON schema is longer than {MAX_BYTES:,} bytes.", code="schema_unsupported")
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise InvalidRequest(
                f"The JSON schema refers to {reference!r}; only references inside it (#…) are followed.",
                code="schema_unsupported",
            )
    jsonschema: Any = importlib.import_module("jsonschema")
    try:
        # Without the check of formats, which would compile patterns by Python's `re`; llguidance reads them itself.
        jsonschema.Draft202012Validator.check_schema(schema, format_checker=None)
    except jsonschema.SchemaError as error:
        raise InvalidRequest(f"The JSON schema is invalid: {error.message}.", code="schema_invalid") from error
    llguidance: Any = importlib.import_module("llguidance")
    grammar = str(llguidance.LLMatcher.grammar_from_json_schema(text, overrides=COMPACT))
    problems = _problems(grammar)
    if problems:
        raise InvalidRequest(f"The JSON schema cannot be held to: {problems}.", code="schema_unsupported")
    return grammar


def limits() -> Any:
    """A part of what llguidance allows by itself: what needs more is refused instead of stalling other sequences."""
    llguidance: Any = importlib.import_module("llguidance")
    return llguidance.LLParserLimits(
        initial_lexer_fuel=500_000, step_lexer_fuel=100_000, step_max_items=20_000, max_lexer_states=50_000,
        max_grammar_size=50_000, verbose_errors=False,
    )  # fmt: skip


def _depth(value: object) -> int:
    deepest = 0
    open_values: list[tuple[object, int]] = [(value, 1)]
    while open_values and deepest <= MAX_SCHEMA_DEPTH:
        item, depth = open_values.pop()
        deepest = max(deepest, depth)
        open_values.extend((child, depth + 1) for child in _children(item))
    return deepest


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(cast(dict[str, object], value).values())
    return list(cast(list[object], value)) if isinstance(value, list) else []


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in cast(dict[str, object], value).items():
            if key in ("$ref", "$dynamicRef") and isinstance(item, str):
                yield item
    for child in _children(cast(object, value)):
        yield from _references(child)
