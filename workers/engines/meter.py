"""Counts what an engine does, for the metrics: tokens, times to the first and between tokens, prefixes, parking."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

from services.fleet import EngineView, TokenTimes
from services.timings import TOKEN_BOUNDS


class Meter:
    """Written by one thread of the engine at a time; :meth:`view` may be read from any."""

    def __init__(self, **gauges: int) -> None:
        """``gauges``: what holds from the beginning."""
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._times: dict[tuple[str, int], list[int]] = {}
        self._sums: defaultdict[tuple[str, int], float] = defaultdict(float)
        self._gauges = gauges

    def step(self, tokens: int, running: int, used_cells: int) -> None:
        """A step computed ``tokens`` for ``running`` sequences, whose part of the cache is ``used_cells`` now."""
        self._counts["steps"] += 1
        self._counts["step_tokens"] += tokens
        self._gauges.update(running=running, used_cells=used_cells)

    def idle(self) -> None:
        """Nothing runs any more."""
        self._gauges.update(running=0, used_cells=0)

    def first_token(self, priority: int, tokens_in: int, seconds: float) -> None:
        """A request of so many tokens got its first one after ``seconds``."""
        self._counts["tokens_in"] += tokens_in
        self._counts["tokens_out"] += 1
        self._time("first_token", priority, seconds)

    def next_token(self, priority: int, seconds: float) -> None:
        """A sequence got its next token ``seconds`` after the one before."""
        self._counts["tokens_out"] += 1
        self._time("between_tokens", priority, seconds)

    def embedded(self, texts: int, tokens: int) -> None:
        """A step turned so many texts, of so many tokens together, into vectors."""
        self._counts["steps"] += 1
        self._counts["step_tokens"] += tokens
        self._counts["texts"] += texts
        self._counts["tokens_in"] += tokens

    def prefix_hit(self, tokens: int) -> None:
        """So many tokens of a prompt need not be computed."""
        self._counts["prefix_hits"] += 1
        self._counts["prefix_tokens"] += tokens

    def parked(self, *, restorable: bool) -> None:
        """A sequence gave up its slot; ``restorable``: what it has computed is kept."""
        self._counts["parked"] += 1
        self._counts["parked_lost"] += not restorable

    def _time(self, what: str, priority: int, seconds: float) -> None:
        key = (what, priority)
        buckets = self._times.get(key)
        if buckets is None:
            buckets = self._times[key] = [0] * (len(TOKEN_BOUNDS) + 1)
        buckets[bisect_left(TOKEN_BOUNDS, seconds)] += 1
        self._sums[key] += seconds

    def view(self, model: str, load_seconds: float) -> EngineView:
        """What an announcement says of the engine of ``model``."""
        return EngineView(
            model=model,
            load_seconds=round(load_seconds, 3),
            counts=dict(self._counts),
            gauges=dict(self._gauges),
            times=tuple(
                TokenTimes(what, priority, tuple(buckets), round(self._sums[what, priority], 6))
                for (what, priority), buckets in list(self._times.items())
            ),
        )
