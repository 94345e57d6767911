"""Which sequences the engine computes: the most urgent have a slot, the others wait, parked ones with their state.

Used by the engine thread alone. A slot keeps what an ended sequence computed until another needs the place, so that a
prompt which begins like it goes on from there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from workers.engines.llama_context import LlamaContext
from workers.engines.meter import Meter
from workers.engines.prefixes import LEAST_TOKENS, Prefixes, State, Tokens, common
from workers.engines.sequence import Request, Sequence

# Prefixes may take this share of the host's memory for states, parked sequences the rest.
PREFIX_SHARE: Final = 0.5
# From so many sequences on, computing them in one piece is worth more than what is warm.
MANY: Final = 4


class _Warm(NamedTuple):
    """What an ended sequence left in its slot."""

    scope: str
    tokens: Tokens


_COLD: Final = _Warm("", np.zeros(0, np.int32))


class Seats:
    """``running`` sequences have one of ``count`` slots each; ``host_bytes`` of memory may hold states outside of them.

    ``shared_cells`` is the size of a cache that all sequences grow into together, 0 where each slot has its own part.
    """

    def __init__(self, context: LlamaContext, count: int, *, host_bytes: int, shared_cells: int, meter: Meter) -> None:
        self.running: list[Sequence] = []
        self._context = context
        self._waiting: list[Sequence] = []
        # The slot that has been free for longest comes first.
        self._free: dict[int, _Warm] = dict.fromkeys(range(count), _COLD)
        self._prefixes = Prefixes(int(host_bytes * PREFIX_SHARE))
        self._parking = int(host_bytes * (1 - PREFIX_SHARE))
        self._shared_cells = shared_cells
        self._meter = meter

    @property
    def used_cells(self) -> int:
        """Tokens of the running sequences in the cache."""
        return sum(sequence.fed for sequence in self.running)

    @property
    def occupied(self) -> bool:
        """Whether anything runs or waits. Safe from any thread."""
        return bool(self.running or self._waiting)

    def lacks(self, tokens: int) -> bool:
        """Whether a shared cache has no room for so many more."""
        if not self._shared_cells:
            return False
        warm = sum(len(left.tokens) for left in self._free.values())
        return self.used_cells + warm + tokens > self._shared_cells

    def add(self, request: Request) -> None:
        """Let a request wait for its turn."""
        heapq.heappush(self._waiting, Sequence(request))

    def remove_waiting(self, which: Callable[[Sequence], bool]) -> list[Sequence]:
        """Take out of the queue what ``which`` names."""
        removed = [sequence for sequence in self._waiting if which(sequence)]
        if removed:
            self._waiting = [sequence for sequence in self._waiting if sequence not in removed]
            heapq.heapify(self._waiting)
            for sequence in removed:
                self._unsave(sequence)
        return removed

    def empty(self) -> list[Sequence]:
        """Give up all sequences; the context is not touched."""
        left, self.running, self._waiting = [*self.running, *self._waiting], [], []
        return left

    def restart(self) -> None:
        """Have every running sequence computed again from its beginning, without any prefix."""
        self.cool()
        for sequence in self.running:
            self._context.forget(sequence.slot)
            sequence.fed, sequence.mark, sequence.begun = 0, 0, True

    def forget(self) -> None:
        """Keep nothing of prompts that have ended: no prefix, nothing warm in the cache."""
        self._prefixes.clear()
        self.cool()

    def fill(self) -> bool:
        """Seat what waits, the most urgent first; whether :meth:`make_way` would seat one that is more urgent still."""
        while self._waiting and self._free and self._fits(self._waiting[0]):
            self._seat(heapq.heappop(self._waiting))
        return self._pressing()

    def make_way(self) -> None:
        """Park the least urgent sequence that runs, where a more urgent one waits."""
        if self._pressing():
            self.park(max(self.running))

    def _pressing(self) -> bool:
        if not self._waiting or not self.running or (self._free and self._fits(self._waiting[0])):
            return False
        head, last = self._waiting[0], max(self.running)
        return head < last and head.request.priority < last.request.priority

    def park(self, sequence: Sequence) -> None:
        """Send a running sequence back into the queue; what it has computed is kept while there is memory."""
        if sequence.fed:
            state = self._context.save(sequence.slot)
            if len(state) and len(state) <= self._parking:
                self._parking -= len(state)
                sequence.saved = state
            else:
                sequence.fed = 0
        self._context.forget(sequence.slot)
        self._free[sequence.slot] = _COLD
        self.running.remove(sequence)
        sequence.slot = -1
        self._meter.parked(restorable=sequence.saved is not None)
        heapq.heappush(self._waiting, sequence)

    def leave(self, sequence: Sequence, *, warm: bool) -> None:
        """Free the slot of a sequence that has ended; ``warm``: what it has computed is right and may be used again."""
        sequence.ended = True
        self.running.remove(sequence)
        if warm:
            tokens = np.array(sequence.tokens[: sequence.fed], np.int32)
            self._free[sequence.slot] = _Warm(sequence.request.scope, tokens)
        else:
            self._context.forget(sequence.slot)
            self._free[sequence.slot] = _COLD

    def cool(self) -> bool:
        """Free what ended sequences have left in the cache; whether there was anything."""
        warm = [slot for slot, left in self._free.items() if left is not _COLD]
        for slot in warm:
            self._context.forget(slot)
            self._free[slot] = _COLD
        return bool(warm)

    def ready(self, sequence: Sequence) -> bool:
        """Whether a seated sequence may be computed now, from the longest prefix known.

        It may not while a prefix of its prompt is being computed by one that is as urgent.
        """
        if sequence.begun:
            return True
        request = sequence.request
        if any(self._leads(other, sequence) for other in self.running if other is not sequence):
            return False
        prefix = self._prefixes.longest(request.scope, request.prompt)
        if prefix is not None and len(prefix.tokens) > sequence.fed:
            self._restore(sequence, prefix.state, len(prefix.tokens))
        elif prefix is None:
            self._borrow(sequence)
        sequence.begun = True
        others = [other.request for other in (*self.running, *self._waiting) if other is not sequence]
        at_hand = [(other.scope, other.prompt) for other in others]
        mark = self._prefixes.boundary(request.scope, request.prompt, at_hand)
        self._prefixes.remember(request.scope, request.prompt)
        sequence.mark = mark if mark > sequence.fed or (mark == sequence.fed and prefix is None) else 0
        self.computed(sequence)
        return True

    def computed(self, sequence: Sequence) -> None:
        """Keep a prefix of which the last token has just been computed."""
        if sequence.mark and sequence.fed == sequence.mark:
            sequence.mark = 0
            prompt = sequence.request.prompt[: sequence.fed]
            self._prefixes.keep(sequence.request.scope, prompt, self._context.save(sequence.slot))

    def _leads(self, other: Sequence, sequence: Sequence) -> bool:
        """Whether ``other``, as urgent, is reading what ``sequence`` begins with; it is told to keep it then."""
        one, two = other.request, sequence.request
        if not other.begun or one.scope != two.scope or one.priority > two.priority:
            return False
        shared = min(common(one.prompt, two.prompt), len(two.prompt) - 1)
        if shared <= max(other.fed, sequence.fed):
            return False
        other.mark = other.mark or shared
        return True

    def _borrow(self, sequence: Sequence) -> None:
        """Take what another that runs has computed of the same beginning, where its cache still has all of it."""
        prompt, scope = sequence.request.prompt, sequence.request.scope
        head = prompt[:LEAST_TOKENS].tolist()
        alike = [
            (min(common(np.array(other.tokens[: other.fed], np.int32), prompt), len(prompt) - 1), other)
            for other in self.running
            if other is not sequence
            and other.fed >= LEAST_TOKENS
            and other.request.scope == scope
            and other.tokens[:LEAST_TOKENS] == head
        ]
        shared, other = max(alike, key=lambda pair: pair[0], default=(0, sequence))
        if shared >= LEAST_TOKENS and shared > sequence.fed and self._context.whole(other.slot):
            self._restore(sequence, self._context.save(other.slot), other.fed)
            if sequence.fed > shared:
                sequence.fed = shared if self._context.cut(sequence.slot, shared) else 0

    def _restore(self, sequence: Sequence, state: State, tokens: int) -> None:
        sequence.fed = tokens if self._context.restore(sequence.slot, state) else 0
        self._meter.prefix_hit(sequence.fed)

    def _fits(self, head: Sequence) -> bool:
        """Whether the shared cache has room for all that ``head`` has by now, beside a token for each that runs."""
        if not self._shared_cells or not self.running:
            return True
        return self.used_cells + len(head.tokens) + len(self.running) + 1 <= self._shared_cells

    def _seat(self, sequence: Sequence) -> None:
        request = sequence.request
        shared: dict[int, int] = {}
        if not sequence.begun:
            same = [(slot, left.tokens) for slot, left in self._free.items() if left.scope == request.scope]
            shared = {slot: common(tokens, request.prompt) for slot, tokens in same}
        # Otherwise the one that has been free for longest; but of many the lowest, since slots without gaps between
        # them are computed in one piece.
        many = len(self.running) + len(self._waiting) >= MANY
        slot = max(self._free, key=lambda free: (shared.get(free, 0), -free if many else 0))
        self._free.pop(slot)
        sequence.slot = slot
        self.running.append(sequence)
        if sequence.saved is not None:
            # Whatever is left there must go first: a state needs its cells.
            self._context.forget(slot)
            if not self._context.restore(slot, sequence.saved):
                sequence.fed = 0
            self._unsave(sequence)
            return
        kept = min(shared.get(slot, 0), len(request.prompt) - 1)
        if kept >= LEAST_TOKENS and self._context.cut(slot, kept):
            sequence.fed = kept
            self._meter.prefix_hit(kept)
        else:
            self._context.forget(slot)

    def _unsave(self, sequence: Sequence) -> None:
        if sequence.saved is not None:
            self._parking += len(sequence.saved)
            sequence.saved = None
