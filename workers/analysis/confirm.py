"""Turns an engine's hits into findings: looks at each hit's place in the original text and keeps what the term means.

All engines share this step, so that they agree by construction; an engine can only miss, never invent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from services.findings import Finding
from services.patterns import Pattern
from services.playbooks import Literal, Playbook, canonical
from shaders.alphabet import Stream
from shaders.factors import ScanPlan
from shaders.literals import is_letter
from shaders.scan import Hits
from workers.analysis.stretches import Check, unchecked, watched

_Span = tuple[int, int]
_NARROW = 8  # places that are tried one by one; measured
_EVERY = 1 << 12  # hits


def confirm(
    text: str, stream: Stream, hits: Hits, plan: ScanPlan, playbook: Playbook, check: Check = unchecked
) -> tuple[Finding, ...]:
    """The findings in ``text``, by start, end and the playbook's order; ``check`` is called often among the hits."""
    literal = plan.literals.is_literal[hits.factors]
    spans = _literals(text, stream, hits.factors[literal], hits.places[literal], plan, check)
    for number, places in _windows(stream, hits.factors[~literal], hits.places[~literal], plan):
        pattern = plan.terms[number].term
        if isinstance(pattern, Pattern):
            spans += [(start, end, number) for start, end in _patterns(text, pattern, places, check)]
    spans.sort()
    names = {number: _name(plan, playbook, number) for number in {number for _, _, number in spans}}
    return tuple(Finding(names[number][0], start, end, names[number][1]) for start, end, number in spans)


def _name(plan: ScanPlan, playbook: Playbook, number: int) -> tuple[str, str]:
    term = plan.terms[number]
    source = term.term.text if isinstance(term.term, Literal) else term.term.source
    return playbook.categories[term.category].id, source


def _literals(
    text: str, stream: Stream, factors: NDArray[np.int32], places: NDArray[np.int64], plan: ScanPlan, check: Check
) -> list[tuple[int, int, int]]:
    """Start, end and number of the term of the literals that stand where their factors were found."""
    if not len(factors):
        return []
    table = plan.literals
    last = places + plan.lengths[factors] - 1
    kept = ~table.is_exact[factors] | table.stand(stream.symbols, factors, places, last)
    factors = factors[kept]
    terms: list[int] = plan.term_of[factors].tolist()
    exact: list[bool] = table.is_exact[factors].tolist()
    starts: list[int] = stream.offsets(places[kept]).tolist()
    ends: list[int] = (stream.offsets(last[kept]) + 1).tolist()
    return [
        (start, end, number)
        for number, sure, start, end in watched(zip(terms, exact, starts, ends, strict=True), check, every=_EVERY)
        if sure or _stands(text, plan.terms[number].term, start, end)
    ]


def _stands(text: str, literal: Literal | Pattern, start: int, end: int) -> bool:
    """Whether a literal whose symbols stand for other characters too is what stands there."""
    if isinstance(literal, Pattern):
        raise AssertionError("a pattern has no text")
    wanted = canonical(literal.text)
    if literal.whole_words and is_letter(wanted[0]) and start > 0 and is_letter(text[start - 1]):
        return False
    if literal.whole_words and is_letter(wanted[-1]) and end < len(text) and is_letter(text[end]):
        return False
    return canonical(text[start:end]) == wanted


def _windows(
    stream: Stream, factors: NDArray[np.int32], places: NDArray[np.int64], plan: ScanPlan
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Numbers of patterns with the first and last places, (n, 2), where matches may begin by what was found."""
    if not len(factors):
        return
    order = np.argsort(factors, kind="stable")
    unique, firsts = np.unique(factors[order], return_index=True)
    numbers: list[int] = unique.tolist()
    windows: dict[int, list[NDArray[np.int64]]] = {}
    for number, found in zip(numbers, np.split(places[order], firsts[1:]), strict=True):
        factor, starts = plan.factors[number], stream.offsets(found)
        windows.setdefault(factor.term, []).append(np.stack([starts - factor.high, starts - factor.low], axis=1))
    for number, parts in windows.items():
        yield number, np.concatenate(parts)


def _patterns(text: str, pattern: Pattern, windows: NDArray[np.int64], check: Check) -> Iterator[_Span]:
    """What ``finditer`` finds; ``windows`` (first and last place, inclusive) hold the start of every match."""
    compiled = pattern.compiled()
    after = 0  # the end of the last match: the next may not begin before it
    for low, high in watched(_merged(windows), check):
        at = max(low, after, 0)
        # A match that starts in the window ends by `stop`, and `\b` looks one character further.
        stop = min(len(text), high + pattern.longest + 1)
        while match := _first(compiled, text, at, high, stop):
            yield match.span()
            at = after = match.end()


def _first(compiled: re.Pattern[str], text: str, low: int, high: int, stop: int) -> re.Match[str] | None:
    """The first match that begins from ``low`` to ``high``; a search would go on to ``stop``, far behind."""
    if high - low > _NARROW:
        match = compiled.search(text, low, stop)
        return match if match and match.start() <= high else None
    for place in range(low, high + 1):
        if match := compiled.match(text, place, stop):
            return match
    return None


def _merged(windows: NDArray[np.int64]) -> Iterator[_Span]:
    """Windows in order, those that touch as one."""
    ordered = windows[np.argsort(windows[:, 0])]
    reach = np.maximum.accumulate(ordered[:, 1])
    fresh = np.concatenate([np.ones(1, np.bool_), ordered[1:, 0] > reach[:-1] + 1])
    first = np.flatnonzero(fresh)
    last = np.append(first[1:], len(ordered)) - 1
    yield from zip(ordered[first, 0].tolist(), reach[last].tolist(), strict=True)
