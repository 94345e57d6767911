"""Says of a function which problems it answers with, beside the function: what the API's description is made from.

``@raises("document_unknown", build_submission)`` stands over a route or a dependency: codes of
:data:`~gateway.openapi.codes.GATEWAY_CODES` and :data:`~gateway.openapi.job_codes.JOB_CODES`, and functions whose own
problems come through. A code that a route answers with another status than usual is a pair: ``("model_unknown", 404)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from gateway.openapi.codes import GATEWAY_CODES, Code
from gateway.openapi.job_codes import JOB_CODES

Declared = TypeVar("Declared", bound=Callable[..., Any])
Problem = tuple[str, int]
"""A code and the status that it comes with."""

CODES: Final[dict[str, Code]] = GATEWAY_CODES | JOB_CODES
_RAISED: Final[dict[Callable[..., Any], frozenset[Problem]]] = {}


def raises(*what: str | Problem | Callable[..., Any]) -> Callable[[Declared], Declared]:
    """Declare what a function raises; the function stays as it is. Raises ``KeyError`` for an unknown code."""

    def declare(function: Declared) -> Declared:
        _RAISED[function] = frozenset(problem for item in what for problem in _problems(item))
        return function

    return declare


def problems_of(function: Callable[..., Any]) -> frozenset[Problem]:
    """What was declared of a function; nothing, where nothing was."""
    return _RAISED.get(function, frozenset())


def _problems(item: str | Problem | Callable[..., Any]) -> frozenset[Problem]:
    if callable(item):
        return problems_of(item)
    code, status = (item, CODES[item].status) if isinstance(item, str) else item
    if code not in CODES:
        raise KeyError(code)
    return frozenset({(code, status)})
