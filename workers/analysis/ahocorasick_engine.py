"""The scan on the CPU where Hyperscan has no wheel (Windows): factors by pyahocorasick, those with sets by ``re``.

The hits are those of every other engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

import ahocorasick
import numpy as np

from shaders.alphabet import Stream
from shaders.factors import ScanPlan
from shaders.scan import Hits
from workers.analysis.stretches import Check, unchecked, watched

_EVERY = 1 << 12  # hits


class AhoCorasickEngine:
    """The automaton and expressions of one plan; safe to share between threads."""

    name = "pyahocorasick"

    def __init__(self, plan: ScanPlan) -> None:
        self._sets: list[tuple[int, re.Pattern[bytes]]] = []
        words: dict[str, list[int]] = {}
        for number, factor in enumerate(plan.factors):
            if all(len(symbols) == 1 for symbols in factor.sets):
                word = "".join(chr(next(iter(symbols))) for symbols in factor.sets)
                words.setdefault(word, []).append(number)
            else:
                body = b"".join(b"[%s]" % b"".join(b"\\x%02x" % symbol for symbol in sets) for sets in factor.sets)
                # Looking ahead consumes nothing, so that hits which overlap are found too.
                self._sets.append((number, re.compile(b"(?=%s)" % body, re.DOTALL)))
        self._automaton: Any = cast("Any", ahocorasick).Automaton()
        for word, numbers in words.items():
            self._automaton.add_word(word, (len(word), numbers))
        if words:
            self._automaton.make_automaton()
        self._has_words = bool(words)

    def scan(self, stream: Stream, check: Check = unchecked) -> Hits:
        """The factors in ``stream``; ``check`` is called for each expression and often among their hits."""
        data = stream.symbols.tobytes()
        factors: list[int] = []
        places: list[int] = []
        if self._has_words:
            found = cast("Iterable[tuple[int, tuple[int, list[int]]]]", self._automaton.iter(data.decode("latin-1")))
            for end, (length, numbers) in watched(found, check, every=_EVERY):
                for number in numbers:
                    factors.append(number)
                    places.append(end + 1 - length)
        for number, expression in watched(self._sets, check):
            begins = [match.start() for match in watched(expression.finditer(data), check, every=_EVERY)]
            factors += [number] * len(begins)
            places += begins
        return Hits(np.array(factors, np.int32), np.array(places, np.int64))
