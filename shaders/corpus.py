"""Texts on the device: joined, one symbol a byte, in shards; resident for as long as the object is kept.

Symbols depend on the playbook's alphabet, so a resident corpus serves every plan whose alphabet is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shaders.alphabet import BREAK, Stream
from shaders.runtime import Runtime

LEAD: Final = 256
"""Symbols before a shard's own: more than any factor is long."""
HIT_BYTES: Final = 8
_MOST_CATEGORIES = 1000


@dataclass(frozen=True, slots=True)
class Shard:
    """Symbols ``origin`` to ``origin + length`` of the corpus in ``text``; those from ``begin`` on are its own.

    Its own symbols begin in document ``first``; ``starts`` says where this and each further one begins in ``text``.
    One symbol stands behind the last, for those who look at what follows.
    """

    text: Any
    origin: int
    begin: int
    length: int
    first: int
    starts: NDArray[np.uint32]


class Corpus:
    """Streams on one device. ``starts`` (n,) are the places of each in all of them joined, a break after each."""

    def __init__(self, runtime: Runtime, streams: Sequence[Stream], size: int | None = None) -> None:
        """Upload; ``size`` symbols a shard instead of as many as the device takes. Raises as in :mod:`shaders.runtime`.

        Every symbol may be a hit and each document has its counts: a shard is as long as both fit one binding.
        """
        stop = np.array([BREAK], np.uint8)
        joined = np.concatenate([piece for stream in streams for piece in (stream.symbols, stop)] or [stop])
        lengths = np.array([len(stream.symbols) + 1 for stream in streams], np.int64)
        self.starts: NDArray[np.int64] = np.cumsum(lengths) - lengths
        self.symbols = len(joined)
        size = size or (runtime.binding_bytes // HIT_BYTES - LEAD - 8)
        documents = runtime.binding_bytes // (4 * _MOST_CATEGORIES)
        self.shards: list[Shard] = []
        begin = 0
        while begin < len(joined):
            first = int(np.searchsorted(self.starts, begin, side="right")) - 1
            end = min(begin + size, len(joined))
            if first + documents < len(self.starts):
                end = min(end, int(self.starts[first + documents]))
            origin = max(0, begin - LEAD)
            text = np.zeros((end + 1 - origin + 15) & ~15, np.uint8)  # the kernels read up to 16 at a time
            part = joined[origin : end + 1]
            text[: len(part)] = part
            inside = self.starts[max(first, 0) : np.searchsorted(self.starts, end)]
            starts = np.maximum(inside - origin, 0).astype(np.uint32)
            self.shards.append(Shard(runtime.upload(text), origin, begin - origin, end - origin, max(first, 0), starts))
            begin = end
