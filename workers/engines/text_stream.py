"""Turns the bytes of generated tokens into text for streaming: whole characters, never a part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """The text of one generation as it grows.

    ``text`` is all that may be shown so far. Bytes that are no UTF-8 become U+FFFD. Text that could be the beginning of
    a stop string is held back until it is known not to be; at a stop string the text ends before it, for good.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._shown: list[str] = []
        self._held = ""
        self.stopped = False

    @property
    def text(self) -> str:
        """All text given out so far."""
        return "".join(self._shown)

    def push(self, data: bytes) -> str:
        """Add the bytes of a token; returns the text that can be shown now, often none."""
        return "" if self.stopped else self._release(self._decoder.decode(data), final=False)

    def finish(self) -> str:
        """End the text; returns what was still held back."""
        return "" if self.stopped else self._release(self._decoder.decode(b"", final=True), final=True)

    def _release(self, new: str, *, final: bool) -> str:
        held = self._held + new
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.stopped = True
            ready, self._held = held[: min(found)], ""
        else:
            keep = 0 if final else self._open_stop(held)
            ready, self._held = held[: len(held) - keep], held[len(held) - keep :]
        if ready:
            self._shown.append(ready)
        return ready

    def _open_stop(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
