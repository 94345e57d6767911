"""Checks finished JSON against its schema in the thread that asked for it: the second look after the mask's.

A client chooses the schema, so the check is bounded in steps, and no pattern of it reaches Python's ``re``, which could
be made to run for years: what patterns ask for was enforced by the mask alone, in linear time.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from services.errors import InvalidRequest, ModelError

# One step is one keyword on one value, some 10 µs; alternatives within alternatives double them with each level.
MAX_STEPS: Final = 250_000
# Members of a keyword, such as the values of an `enum`, that cost as much as one step.
_MEMBERS: Final = 32

_Keyword = Callable[[Any, Any, Any, dict[str, Any]], "Iterable[Any] | None"]


def validate(schema: dict[str, Any], text: str) -> None:
    """Raise ``ModelError`` ``schema_violated`` where ``text`` is no JSON that satisfies ``schema``.

    Raises ``InvalidRequest`` ``schema_unsupported`` where that takes more than :data:`MAX_STEPS`.
    """
    referencing: Any = importlib.import_module("referencing")
    try:
        # The empty registry fetches nothing, whatever the schema refers to.
        checker = _checker()(schema, registry=referencing.Registry())
        problem = next(checker.iter_errors(json.loads(text)), None)
        reason = None if problem is None else str(problem.message)
    except RecursionError:
        reason = "it is nested too deeply to be checked"
    except (ValueError, ArithmeticError) as error:
        reason = str(error)
    if reason is not None:
        raise ModelError(f"The generated JSON does not satisfy the schema: {reason[:300]}", code="schema_violated")


def _checker() -> Any:
    """A validator class for one text, whose keywords share one count of steps."""
    jsonschema: Any = importlib.import_module("jsonschema")
    draft = jsonschema.Draft202012Validator
    ours: dict[str, _Keyword] = {
        "pattern": _unchecked,
        "patternProperties": _unchecked,
        "additionalProperties": _unless_patterns(draft.VALIDATORS["additionalProperties"]),
        # Refused by `check_schema`; it would search for the patterns of the others.
        "unevaluatedProperties": _unchecked,
    }
    keywords = cast(dict[str, _Keyword], draft.VALIDATORS) | ours
    steps = _Steps()
    return jsonschema.validators.extend(draft, {name: steps.counted(keyword) for name, keyword in keywords.items()})


def _unchecked(_validator: Any, _value: Any, _instance: Any, _schema: dict[str, Any]) -> None:
    """A keyword that the mask alone enforced."""


def _unless_patterns(keyword: _Keyword) -> _Keyword:
    """``additionalProperties`` where no patterns say which properties are additional."""

    def check(validator: Any, value: Any, instance: Any, schema: dict[str, Any]) -> Iterable[Any] | None:
        return None if "patternProperties" in schema else keyword(validator, value, instance, schema)

    return check


class _Steps:
    """Counts the steps of one check."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def counted(self, keyword: _Keyword) -> _Keyword:
        """``keyword``, which raises ``InvalidRequest`` when no steps are left."""

        def check(validator: Any, value: Any, instance: Any, schema: dict[str, Any]) -> Iterable[Any] | None:
            self._left -= 1 + (len(cast("list[Any]", value)) // _MEMBERS if isinstance(value, list | dict) else 0)
            if self._left < 0:
                raise InvalidRequest(
                    f"Checking the generated JSON against its schema takes more than {MAX_STEPS:,} steps; nest fewer "
                    "`anyOf`, `oneOf` and `allOf` within each other, or ask for a shorter text.",
                    code="schema_unsupported",
                )
            return keyword(validator, value, instance, schema)

        return check
