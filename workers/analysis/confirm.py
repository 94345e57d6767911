"""Turns an engine's hits into findings: looks at each hit's place in the original text and keeps what the term means.

All engines share this step, so that they agree by construction; an engine can only miss, never invent.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from services.findings import Finding
from services.patterns import Pattern
from services.playbooks import Literal, Playbook, canonical
from shaders.alphabet import Stream
from shaders.factors import ScanPlan
from shaders.scan import Hits
from shaders.tally import is_letter

_Span = tuple[int, int]


def confirm(text: str, stream: Stream, hits: Hits, plan: ScanPlan, playbook: Playbook) -> tuple[Finding, ...]:
    """The findings in ``text``, by start, end and the playbook's order."""
    order = np.argsort(hits.factors, kind="stable")
    factors, places = hits.factors[order], hits.places[order]
    windows: dict[int, list[NDArray[np.int64]]] = {}
    spans: list[tuple[int, int, int]] = []
    numbers: list[int] = np.unique(factors).tolist()
    for number in numbers:
        factor = plan.factors[number]
        found = places[np.searchsorted(factors, number) : np.searchsorted(factors, number, side="right")]
        starts = stream.offsets(found)
        term = plan.terms[factor.term].term
        if isinstance(term, Literal):
            ends = stream.offsets(found + (len(factor.sets) - 1)) + 1
            spans += [(start, end, factor.term) for start, end in _literals(text, term, starts, ends)]
        else:
            windows.setdefault(factor.term, []).append(np.stack([starts - factor.high, starts - factor.low], axis=1))
    for number, parts in windows.items():
        pattern = plan.terms[number].term
        if isinstance(pattern, Pattern):
            spans += [(start, end, number) for start, end in _patterns(text, pattern, np.concatenate(parts))]
    spans.sort()
    names = {number: _name(plan, playbook, number) for number in {number for _, _, number in spans}}
    return tuple(Finding(names[number][0], start, end, names[number][1]) for start, end, number in spans)


def _name(plan: ScanPlan, playbook: Playbook, number: int) -> tuple[str, str]:
    term = plan.terms[number]
    source = term.term.text if isinstance(term.term, Literal) else term.term.source
    return playbook.categories[term.category].id, source


def _literals(text: str, literal: Literal, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Iterator[_Span]:
    wanted = canonical(literal.text)
    check_left = literal.whole_words and is_letter(wanted[0])
    check_right = literal.whole_words and is_letter(wanted[-1])
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if check_left and start > 0 and is_letter(text[start - 1]):
            continue
        if check_right and end < len(text) and is_letter(text[end]):
            continue
        if canonical(text[start:end]) == wanted:
            yield start, end


def _patterns(text: str, pattern: Pattern, windows: NDArray[np.int64]) -> Iterator[_Span]:
    """What ``finditer`` finds; ``windows`` (first and last place, inclusive) hold the start of every match."""
    compiled = pattern.compiled()
    after = 0  # the end of the last match: the next may not begin before it
    for low, high in _merged(windows):
        at = max(low, after, 0)
        # A match that starts in the window ends by `stop`, and `\b` looks one character further.
        stop = min(len(text), high + pattern.longest + 1)
        while at <= high and (match := compiled.search(text, at, stop)) and match.start() <= high:
            yield match.span()
            at = after = match.end()


def _merged(windows: NDArray[np.int64]) -> Iterator[_Span]:
    """Windows in order, those that touch as one."""
    ordered = windows[np.argsort(windows[:, 0])]
    reach = np.maximum.accumulate(ordered[:, 1])
    fresh = np.concatenate([np.ones(1, np.bool_), ordered[1:, 0] > reach[:-1] + 1])
    first = np.flatnonzero(fresh)
    last = np.append(first[1:], len(ordered)) - 1
    yield from zip(ordered[first, 0].tolist(), reach[last].tolist(), strict=True)
