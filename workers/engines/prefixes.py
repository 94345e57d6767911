"""Prefixes that many prompts begin with: finds where prompts part, and keeps what was computed up to there.

States are what :meth:`LlamaContext.save` gives at exactly that token, so they are right for sliding windows and
recurrent models too. Prompts meet only within their scope, a tenant.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
State = NDArray[np.uint8]

# Shorter ones cost more to look after than to compute.
LEAST_TOKENS: Final = 64
# How many earlier prompts a new one is compared with, beside those that run and wait.
REMEMBERED: Final = 64


class Prefix(NamedTuple):
    """``tokens`` at the beginning of prompts and the ``state`` of the cache behind them."""

    scope: str
    tokens: Tokens
    state: State


class Prefixes:
    """The kept prefixes, at most ``limit`` bytes of them; the least recently used go first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._kept: OrderedDict[tuple[str, bytes], Prefix] = OrderedDict()
        self._seen: deque[tuple[str, Tokens]] = deque(maxlen=REMEMBERED)

    def remember(self, scope: str, prompt: Tokens) -> None:
        """Have later prompts compared with this one."""
        self._seen.append((scope, prompt))

    def boundary(self, scope: str, prompt: Tokens, others: Iterable[tuple[str, Tokens]]) -> int:
        """Where to keep ``prompt``'s beginning: the length that saves most over all that share it, 0 where none does.

        ``others`` are the prompts at hand, in addition to those remembered.
        """
        shared = Counter(
            common(prompt, other)
            for near, other in (*self._seen, *others)
            if near == scope and len(other) >= LEAST_TOKENS
        )
        best, gain, sharing = 0, 0, 0
        for length in sorted(shared, reverse=True):
            sharing += shared[length]
            if length >= LEAST_TOKENS and length * sharing > gain:
                best, gain = length, length * sharing
        # At least one token of a prompt is always computed, for its logits.
        return min(best, len(prompt) - 1)

    def keep(self, scope: str, tokens: Tokens, state: State) -> None:
        """Keep a state, unless it is more than a quarter of all that may be kept."""
        if not len(state) or len(state) > self.limit // 4:
            return
        name = (scope, tokens.tobytes())
        self._drop(name)
        self._kept[name] = Prefix(scope, tokens.copy(), state)
        self.bytes += len(state)
        while self.bytes > self.limit:
            self._drop(next(iter(self._kept)))

    def longest(self, scope: str, prompt: Tokens) -> Prefix | None:
        """The longest kept prefix that ``prompt`` begins with and goes on after."""
        found: Prefix | None = None
        for prefix in self._kept.values():
            length = len(prefix.tokens)
            longer = length < len(prompt) and (found is None or length > len(found.tokens))
            if longer and prefix.scope == scope and np.array_equal(prefix.tokens, prompt[:length]):
                found = prefix
        if found is not None:
            self._kept.move_to_end((scope, found.tokens.tobytes()))
        return found

    def clear(self) -> None:
        """Keep and remember nothing of what there was."""
        self._kept.clear()
        self._seen.clear()
        self.bytes = 0

    def _drop(self, name: tuple[str, bytes]) -> None:
        prefix = self._kept.pop(name, None)
        if prefix is not None:
            self.bytes -= len(prefix.state)


def common(one: Tokens, other: Tokens) -> int:
    """How many tokens both begin with; 0 where it is fewer than ``LEAST_TOKENS``."""
    # By bytes: most prompts part here, and a full engine compares thousands of pairs before their first token.
    if one[:LEAST_TOKENS].tobytes() != other[:LEAST_TOKENS].tobytes():
        return 0
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length
