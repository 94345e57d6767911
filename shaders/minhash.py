"""MinHash on the GPU: uploads many texts, runs ``minhash.wgsl`` and brings back a sketch of each.

The CPU path in ``workers/analysis/minhash.py`` multiplies by the same factors and gives the same sketches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shaders.catalog import MINHASH
from shaders.runtime import Dispatch, Runtime

PERMUTATIONS: Final = 128
# What the sketch of a text without shingles consists of; in others it stands only where no hash gave less.
NOTHING: Final = 0xFFFFFFFF
# Bytes of texts that the device is given at a time.
_BATCH: Final = 8 << 20
# Bytes of a text that a workgroup owns, as many as its memory can hold hashes for.
_PIECE: Final = 2048
# Numbers a text in the result: its sketch, and whether the host must make it.
_RESULT: Final = PERMUTATIONS + 1


def _factors() -> NDArray[np.uint32]:
    digests = (hashlib.sha256(f"casemill minhash {number}".encode()).digest() for number in range(PERMUTATIONS))
    return np.array([int.from_bytes(digest[:4], "little") | 1 for digest in digests], np.uint32)


FACTORS: Final = _factors()
"""An odd number a permutation, (128,): multiplied by it modulo 2**32 each number becomes another one.

Kept sketches depend on them, so they come from SHA-256 and not from a random generator that a new release may change.
"""


class GpuMinHash:
    """The kernel on one device; safe to share between threads."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._table = runtime.upload(FACTORS)
        # What one dispatch may have: bytes of texts with a byte before each, and texts.
        self._most = runtime.binding_bytes - 8
        self._texts = runtime.binding_bytes // (4 * _RESULT)

    def sketch(self, texts: Iterable[bytes], *, ignore_numbers: bool = False) -> tuple[NDArray[np.uint32], list[int]]:
        """A sketch a text, (n, 128), and the numbers of the texts that the host must do, as it says in the kernel.

        ``texts`` are UTF-8. They are taken one by one while no other thread can upload, so they must come quickly and
        without use of the device, which works on some while the host prepares the next. Errors as in
        :mod:`shaders.runtime`.
        """
        under_way: list[tuple[int, Any]] = []
        beyond: list[int] = []
        coming, number = iter(texts), 0
        limit = min(self._most, _BATCH)

        def following() -> bytes | None:
            """The next text, an empty one in place of one that the device cannot take."""
            nonlocal number
            text = next(coming, None)
            if text is not None:
                number += 1
                if len(text) >= self._most:
                    beyond.append(number - 1)
                    return b""
            return text

        def batch(lengths: list[int]) -> Iterator[bytes]:
            """Texts for one dispatch, whose ``lengths`` it notes; each is let go, for new memory takes long to come."""
            nonlocal text
            yield b""
            held = 0
            while text is not None and len(lengths) < self._texts and not (lengths and held + len(text) >= limit):
                lengths.append(len(text))
                held += len(text) + 1
                yield text
                text = following()

        text = following()
        while text is not None:
            lengths: list[int] = []
            size = -(-(1 + max(limit, len(text) + 1)) // 4) * 4
            uploaded = self.runtime.upload_texts(batch(lengths), 0, size)
            under_way.append((len(lengths), self._dispatch(uploaded, lengths, ignore_numbers)))
        sketches = np.empty((number, PERMUTATIONS), np.uint32)
        first = 0
        for count, buffer in under_way:
            found = self.runtime.read(buffer, _RESULT * count)
            sketches[first : first + count] = ~found[: PERMUTATIONS * count].reshape(count, PERMUTATIONS)
            beyond += (first + np.flatnonzero(found[PERMUTATIONS * count :])).tolist()
            first += count
        return sketches, sorted(beyond)

    def _dispatch(self, texts: Any, sizes: list[int], ignore_numbers: bool) -> Any:
        """Have the device work on texts of these sizes that it was given; answers the buffer of what it finds."""
        runtime, count = self.runtime, len(sizes)
        lengths = np.array(sizes, np.int64)
        # A buffer has one piece at least, if an empty one.
        pieces = _pieces(lengths) if lengths.any() else np.zeros((1, 4), np.uint32)
        job = [len(pieces), runtime.width(MINHASH) // MINHASH.workgroup, int(ignore_numbers), count]
        buffers = {
            0: runtime.upload(np.array(job, np.uint32), uniform=True),
            1: texts,
            2: runtime.upload(pieces),
            3: self._table,
            4: runtime.empty(4 * _RESULT * count),
        }
        runtime.run([Dispatch(MINHASH, "minhash", buffers, MINHASH.workgroup * len(pieces))])
        return buffers[4]


def _pieces(lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Begin, end, end of the text and its number for each piece, (pieces, 4); texts lie behind a byte each."""
    begins = np.cumsum(lengths + 1) - lengths
    counts = -(-lengths // _PIECE)
    texts = np.repeat(np.arange(len(lengths)), counts)
    within = np.arange(len(texts)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin, last = begins[texts] + _PIECE * within, (begins + lengths)[texts]
    return np.column_stack([begin, np.minimum(begin + _PIECE, last), last, texts]).astype(np.uint32)
