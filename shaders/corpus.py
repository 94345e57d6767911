"""Texts on the device: uploaded as they are, made symbols there, and resident for as long as the object is kept.

Symbols depend on the playbook's alphabet, so a resident corpus serves every plan whose alphabet is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shaders.alphabet import Alphabet
from shaders.catalog import SYMBOLS
from shaders.runtime import Dispatch, Runtime

LEAD: Final = 256
"""No factor is longer than this many symbols."""
HIT_BYTES: Final = 8
_MOST_CATEGORIES = 1000
_TILE = 4096  # bytes
_END = 0xFF  # which UTF-8 does not have


@dataclass(frozen=True, slots=True)
class Shard:
    """Symbols ``begin`` to ``end`` of the corpus, in ``text`` together with all others.

    They begin in document ``first``; ``starts`` says where this and each further one begins. At least one symbol stands
    behind the last, for those who look at what follows.
    """

    text: Any
    begin: int
    end: int
    first: int
    starts: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts in symbols on one device, a break after each. ``starts`` (n,) are where each begins."""

    starts: NDArray[np.int64]
    shards: Sequence[Shard]


@dataclass(frozen=True, slots=True)
class Upload:
    """Texts that the device was given and makes symbols of."""

    symbols: Any
    starts: Any
    texts: int


class Uploader:
    """Makes corpora of texts in the symbols of one alphabet on one device; safe to share between threads."""

    def __init__(self, alphabet: Alphabet, runtime: Runtime) -> None:
        self.runtime = runtime
        self.most_bytes = runtime.binding_bytes - 32
        """Bytes that texts may have together, with one more for each."""
        self._table = runtime.upload(alphabet.table.view(np.uint32))

    def corpus(self, texts: Sequence[bytes], size: int | None = None) -> Corpus:
        """The corpus of texts in UTF-8; arguments and errors as in :meth:`begin` and :meth:`finish`."""
        return self.finish(self.begin(texts), size)

    def begin(self, texts: Sequence[bytes]) -> Upload:
        """Give the device texts in UTF-8; meanwhile the host is free.

        Lone surrogates are encoded as any character. Raises as in :mod:`shaders.runtime`; ``gpu_limit`` where the texts
        have more than :attr:`most_bytes`.
        """
        runtime = self.runtime
        first = np.cumsum([0, *(len(text) + 1 for text in texts)]).astype(np.uint32)
        first[-1] = size = -(-int(first[-1]) // 4) * 4
        tiles = -(-size // _TILE)
        job = [size, tiles, runtime.width(SYMBOLS) // SYMBOLS.workgroup, len(texts)]
        buffers = {
            0: runtime.upload(np.array(job, np.uint32), uniform=True),
            1: runtime.upload_texts(texts, _END, (size + 31) & ~15),  # more than one character is read at a time
            2: self._table,
            3: runtime.empty(4 * (tiles + 1)),
            4: runtime.empty((size + 31) & ~15),  # a symbol a byte at most
            5: runtime.upload(first),
            6: runtime.empty(first.nbytes),
        }
        threads = tiles * SYMBOLS.workgroup
        steps = {"count": threads, "sum": SYMBOLS.workgroup, "write": threads, "begin": len(first)}
        runtime.run([Dispatch(SYMBOLS, entry, buffers, count) for entry, count in steps.items()])
        return Upload(buffers[4], buffers[6], len(texts))

    def finish(self, upload: Upload, size: int | None = None) -> Corpus:
        """The corpus, when it is made; ``size`` symbols a shard instead of as many as the device takes.

        Every symbol may be a hit and each document has its counts: a shard is as long as both fit one binding.
        """
        limit = self.runtime.binding_bytes
        size, documents = size or limit // HIT_BYTES - 8, limit // (4 * _MOST_CATEGORIES)
        found = self.runtime.read(upload.starts, upload.texts + 1).astype(np.int64)
        starts, symbols = found[:-1], int(found[-1])
        shards: list[Shard] = []
        begin = 0
        while begin < symbols:
            first = int(np.searchsorted(starts, begin, side="right")) - 1
            end = min(begin + size, symbols)
            if first + documents < len(starts):
                end = min(end, int(starts[first + documents]))
            inside = starts[first : np.searchsorted(starts, end)].astype(np.uint32)
            shards.append(Shard(upload.symbols, begin, end, first, inside))
            begin = end
        return Corpus(starts, shards)
