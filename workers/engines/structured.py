"""Holds generated text to a JSON schema: llguidance masks the logits, jsonschema validates the finished text.

What the schema asks for is enforced or refused (`schema_unsupported`), never silently ignored.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Iterator
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidRequest, ModelError
from workers.engines.llama_api import LlamaModel

MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_SCHEMA_DEPTH: Final = 48
# Compact separators with a space, as most training text has them; free white space lets small models idle in it.
_OPTIONS: Final = {
    "lenient": False,
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": False,
}


def check_schema(schema: dict[str, Any]) -> str:
    """The llguidance grammar of ``schema``. Raises ``InvalidRequest`` ``schema_unsupported`` or ``schema_invalid``."""
    if _depth(schema) > MAX_SCHEMA_DEPTH:
        raise InvalidRequest(f"The JSON schema is nested deeper than {MAX_SCHEMA_DEPTH}.", code="schema_unsupported")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"The JSON schema is no JSON: {error}.", code="schema_invalid") from error
    if len(text) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"The JSON schema is longer than {MAX_SCHEMA_BYTES:,} bytes.", code="schema_unsupported")
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise InvalidRequest(
                f"The JSON schema refers to {reference!r}; only references inside it (#…) are followed.",
                code="schema_unsupported",
            )
    jsonschema: Any = importlib.import_module("jsonschema")
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise InvalidRequest(f"The JSON schema is invalid: {error.message}.", code="schema_invalid") from error
    llguidance: Any = importlib.import_module("llguidance")
    grammar = str(llguidance.LLMatcher.grammar_from_json_schema(text, overrides=_OPTIONS))
    is_error, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, limits=_limits())
    if is_error or messages:
        raise InvalidRequest(f"The JSON schema cannot be held to: {'; '.join(messages)}.", code="schema_unsupported")
    return grammar


def _limits() -> Any:
    # A tenth of llguidance's defaults: a schema that needs more is refused instead of stalling the other sequences.
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


def validate(schema: dict[str, Any], text: str) -> None:
    """Raise ``ModelError`` ``schema_violated`` where ``text`` is no JSON that satisfies ``schema``."""
    jsonschema: Any = importlib.import_module("jsonschema")
    # Patterns were enforced by the mask in linear time; Python's `re` could be made to run for years by them.
    lax = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": None, "patternProperties": None})
    try:
        problem = next(lax(schema).iter_errors(json.loads(text)), None)
        reason = None if problem is None else str(problem.message)
    except ValueError as error:
        reason = str(error)
    if reason is not None:
        raise ModelError(f"The generated JSON does not satisfy the schema: {reason[:300]}", code="schema_violated")


class JsonMatcher:
    """Follows one generation through the grammar; used by the engine thread only, after it was built."""

    def __init__(self, matcher: Any, schema: dict[str, Any], vocab_size: int) -> None:
        self._matcher = matcher
        self._schema = schema
        self._mask = np.zeros((vocab_size + 31) // 32, np.int32)
        self._vocab_size = vocab_size
        self._raise_error()

    def exclude(self, logits: NDArray[np.float32]) -> None:
        """Set the logits (vocabulary,) of all tokens that would break the schema to −inf."""
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._raise_error()
        allowed = np.unpackbits(self._mask.view(np.uint8), bitorder="little", count=self._vocab_size)
        logits[allowed == 0] = -np.inf

    def accept(self, token: int) -> None:
        """Go on by ``token``."""
        self._matcher.consume_token(token)
        self._raise_error()

    @property
    def complete(self) -> bool:
        """Whether the JSON is finished and nothing may follow."""
        return bool(self._matcher.is_stopped())

    def validate(self, text: str) -> None:
        """See :func:`validate`."""
        validate(self._schema, text)

    def _raise_error(self) -> None:
        if self._matcher.is_error():
            reason = str(self._matcher.get_error()).splitlines()[0][:300]
            raise InvalidRequest(f"The JSON schema is too complex to hold to: {reason}", code="schema_unsupported")


class SchemaCompiler:
    """Makes matchers for one model; its view of the vocabulary is built at first use (about a second)."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._tokenizer: Any = None

    def matcher(self, schema: dict[str, Any]) -> JsonMatcher:
        """A fresh matcher for ``schema``. Raises as :func:`check_schema`."""
        grammar = check_schema(schema)
        llguidance: Any = importlib.import_module("llguidance")
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = llguidance.LLTokenizer.from_llamacpp(
                    tokens=[self._spelling(token) for token in range(self._model.vocab_size)],
                    vocab_ptr=self._model.vocab,
                    tokenize_fptr=self._model.tokenize_address,
                    eos_token=[token for token in range(self._model.vocab_size) if self._model.ends(token)],
                    slices=None,
                )
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=_limits())
        return JsonMatcher(matcher, schema, self._model.vocab_size)

    def _spelling(self, token: int) -> bytes:
        """The token as llguidance wants it: what is no text begins with the byte 0xFF, which no text has."""
        spelled = self._model.piece(token, special=True)
        return b"\xff" + spelled if self._model.is_control(token) else spelled
