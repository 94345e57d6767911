"""The scan on the CPU by Hyperscan: every factor becomes one byte expression over the text's symbols.

The wheel exists for Linux and macOS; elsewhere ``ahocorasick_engine`` takes over.
"""

from __future__ import annotations

import threading

import hyperscan
import numpy as np

from services.errors import Permanent
from shaders.alphabet import Stream
from shaders.factors import ScanPlan
from shaders.scan import Hits
from workers.analysis.stretches import STRETCH, Check, unchecked


class HyperscanEngine:
    """The compiled factors of one plan; safe to share between threads."""

    name = "hyperscan"

    def __init__(self, plan: ScanPlan) -> None:
        by_sets: dict[tuple[frozenset[int], ...], list[int]] = {}
        for number, factor in enumerate(plan.factors):
            by_sets.setdefault(factor.sets, []).append(number)
        # The factors of an expression stand in a row: `firsts[ident]` is the place of the first in `factors`.
        self._factors = np.array([factor for factors in by_sets.values() for factor in factors], np.int32)
        self._shares = np.array([len(factors) for factors in by_sets.values()], np.int64)
        self._firsts = np.cumsum(self._shares) - self._shares
        self._lengths = np.array([len(sets) for sets in by_sets], np.int64)
        self._overlap = int(self._lengths.max(initial=1)) - 1
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        expressions = [b"".join(map(_expression, sets)) for sets in by_sets]
        try:
            self._database.compile(  # pyright: ignore[reportUnknownMemberType]
                expressions=expressions, ids=list(range(len(expressions))), flags=hyperscan.HS_FLAG_DOTALL
            )
        except hyperscan.HyperscanError as error:
            raise Permanent(f"Hyperscan cannot take the playbook: {error}", code="playbook_too_large") from error
        # A scratch space serves one scan at a time, so each thread gets its own.
        self._own = threading.local()

    def scan(self, stream: Stream, check: Check = unchecked) -> Hits:
        """The factors in ``stream``; ``check`` is called for each stretch of it."""
        idents: list[int] = []
        ends: list[int] = []
        begin = low = 0

        def on_match(ident: int, _start: int, end: int, _flags: int, _context: object) -> None:
            if low + end > begin:  # what ends before was found with the stretch before
                idents.append(ident)
                ends.append(low + end)

        if not hasattr(self._own, "scratch"):
            self._own.scratch = hyperscan.Scratch(self._database)
        for begin in range(0, len(stream.symbols), STRETCH):
            check()
            low = max(0, begin - self._overlap)
            data = stream.symbols[low : begin + STRETCH].tobytes()
            self._database.scan(data, match_event_handler=on_match, scratch=self._own.scratch)
        found = np.array(idents, np.int64)
        shares = self._shares[found]
        # The k-th factor of each match: a running number minus the number at which its match begins.
        within = np.arange(int(shares.sum())) - np.repeat(np.cumsum(shares) - shares, shares)
        factors = self._factors[np.repeat(self._firsts[found], shares) + within]
        return Hits(factors, np.repeat(np.array(ends, np.int64) - self._lengths[found], shares))


def _expression(symbols: frozenset[int]) -> bytes:
    codes = b"".join(b"\\x%02x" % symbol for symbol in sorted(symbols))
    return codes if len(symbols) == 1 else b"[" + codes + b"]"
