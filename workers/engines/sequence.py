"""One generation from submission to its last token: the request that waits, and the sequence that runs in a slot."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final

from workers.engines.base import FinishReason, Generation, Sampling
from workers.engines.sampling import Chooser
from workers.engines.structured import Matcher
from workers.engines.text_stream import TextStream

_arrivals: Final = itertools.count()


@dataclass(slots=True, eq=False)
class Request:
    """What a calling thread hands to the engine thread.

    ``events`` carries pieces of text and at last a :class:`Generation` or an exception. ``cancelled`` is set by the
    caller and read between steps.
    """

    prompt: list[int]
    sampling: Sampling
    priority: int
    chooser: Chooser
    matcher: Matcher | None = None
    cancelled: bool = False
    events: SimpleQueue[str | Generation | BaseException] = field(
        default_factory=SimpleQueue[str | Generation | BaseException]
    )
    arrival: int = field(default_factory=lambda: next(_arrivals))

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts by priority, then arrival."""
        return self.priority, self.arrival

    def __lt__(self, other: Request) -> bool:
        return self.rank < other.rank


class RunningSequence:
    """A request in a slot. ``tokens`` are prompt and generated ones; the first ``fed`` of them are in the cache."""

    def __init__(self, request: Request, slot: int) -> None:
        self.request = request
        self.slot = slot
        self.tokens = list(request.prompt)
        self.fed = 0
        self.reason: FinishReason | None = None
        self._stream = TextStream(request.sampling.stop)

    @property
    def waiting_tokens(self) -> int:
        """Tokens that are still to be computed: 1 while generating, more while the prompt is read."""
        return len(self.tokens) - self.fed

    @property
    def produced(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - len(self.request.prompt)

    def accept(self, token: int, piece: bytes, *, ends: bool) -> None:
        """Take the chosen token; sets ``reason`` where the text ends with it. Raises what the matcher raises."""
        matcher = self.request.matcher
        if ends:
            self.reason = "stop"
            return
        if matcher is not None:
            matcher.accept(token)
        self.request.chooser.observe(token)
        self.tokens.append(token)
        self._show(self._stream.push(piece))
        if self._stream.stopped or (matcher is not None and matcher.complete):
            self.reason = "stop"
        elif self.produced >= self.request.sampling.max_tokens:
            self.reason = "length"

    def finish(self, reason: FinishReason) -> None:
        """Hand the result over. Raises ``ModelError`` where finished text is not in its form."""
        self._show(self._stream.finish())
        text = self._stream.text
        if reason == "stop" and self.request.matcher is not None:
            self.request.matcher.validate(text)
        # A stop string may also be completed by the very last bytes, after the token count ran out.
        found: FinishReason = "stop" if self._stream.stopped else reason
        self.request.events.put(Generation(text, len(self.request.prompt), self.produced, found))

    def _show(self, text: str) -> None:
        if text:
            self.request.events.put(text)
