"""One generation from submission to its last token: the request of the caller, and the sequence in the engine."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.engines.base import FinishReason, Generation, Sampling
from workers.engines.graph_top_k import KEPT
from workers.engines.sampling import Chooser
from workers.engines.structured import Matcher
from workers.engines.text_stream import TextStream

# A request of one priority comes before a newer one of the next as long as it is at most this much older.
AGEING_SECONDS: Final = 60.0

_arrivals: Final = itertools.count()


@dataclass(slots=True, eq=False)
class Request:
    """What a calling thread hands to the engine thread.

    Only requests of the same ``scope`` share prefixes. ``events`` carries pieces of text and at last a
    :class:`Generation` or an exception. ``cancelled`` is set by the caller and read between steps.
    """

    prompt: NDArray[np.int32]
    sampling: Sampling
    priority: int
    chooser: Chooser
    matcher: Matcher | None = None
    scope: str = ""
    cancelled: bool = False
    events: SimpleQueue[str | Generation | BaseException] = field(
        default_factory=SimpleQueue[str | Generation | BaseException]
    )
    submitted: float = field(default_factory=time.monotonic)
    arrival: int = field(default_factory=lambda: next(_arrivals))

    @property
    def searchable(self) -> bool:
        """Whether its tokens can be chosen by the likeliest that llama.cpp's graph finds."""
        return self.matcher is None and 0 < self.chooser.nearest <= KEPT

    @property
    def rank(self) -> tuple[bool, float, int]:
        """The lowest goes first: critical requests, then by priority and age, so that none waits for ever."""
        return self.priority > 0, self.submitted + AGEING_SECONDS * self.priority, self.arrival


class Sequence:
    """A request in the engine. ``tokens`` are prompt and generated ones; the first ``fed`` of them are in the cache.

    ``slot`` is −1 while it waits; one that was parked keeps in ``saved`` what it had in the cache, or computes it
    again. At ``mark`` tokens its prefix is kept for others; ``begun``: its first tokens are being computed.
    ``told_at`` is when the last token that was told was chosen, 0.0 before the first. ``ended``: it was handed over.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.slot = -1
        self.tokens = request.prompt.tolist()
        self.fed = 0
        self.mark = 0
        self.begun = False
        self.saved: NDArray[np.uint8] | None = None
        self.reason: FinishReason | None = None
        self.told_at = 0.0
        self.ended = False
        self._stream = TextStream(request.sampling.stop)

    def __lt__(self, other: Sequence) -> bool:
        return self.request.rank < other.request.rank

    @property
    def waiting_tokens(self) -> int:
        """Tokens that are still to be computed: 1 while generating, more while the prompt is read."""
        return len(self.tokens) - self.fed

    @property
    def produced(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - len(self.request.prompt)

    def take(self, token: int, *, ends: bool) -> None:
        """Go on by the chosen token; sets ``reason`` where nothing follows. Raises what the matcher raises."""
        matcher = self.request.matcher
        if ends:
            self.reason = "stop"
            return
        if matcher is not None:
            matcher.accept(token)
        self.tokens.append(token)
        self.request.chooser.observe(token)
        if matcher is not None and matcher.complete:
            self.reason = "stop"
        elif self.produced >= self.request.sampling.max_tokens:
            self.reason = "length"

    def tell(self, piece: bytes) -> None:
        """Pass the text of the token taken last on; a stop string sets ``reason``."""
        self._show(self._stream.push(piece))
        if self._stream.stopped:
            self.reason = "stop"

    def finish(self, reason: FinishReason) -> None:
        """Hand the result over. Raises ``ModelError`` where the text ends before its grammar does."""
        self._show(self._stream.finish())
        text = self._stream.text
        if reason == "stop" and self.request.matcher is not None:
            self.request.matcher.finish()
        # A stop string may also be completed by the very last bytes, after the token count ran out.
        found: FinishReason = "stop" if self._stream.stopped else reason
        self.request.events.put(Generation(text, len(self.request.prompt), self.produced, found))

    def _show(self, text: str) -> None:
        if text:
            self.request.events.put(text)
