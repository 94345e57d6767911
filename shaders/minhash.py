"""MinHash on the GPU: uploads many texts, runs ``minhash.wgsl`` and brings back a sketch of each.

The CPU path in ``workers/analysis/minhash.py`` multiplies by the same factors and gives the same sketches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shaders.catalog import MINHASH
from shaders.runtime import Dispatch, Runtime

PERMUTATIONS: Final = 128
# What the sketch of a text without shingles consists of; in others it stands only where no hash gave less.
NOTHING: Final = 0xFFFFFFFF
# Bytes of a text that a workgroup owns, as many as its memory can hold hashes for.
_PIECE: Final = 4096
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
        self._bytes = runtime.binding_bytes - 8
        self._texts = runtime.binding_bytes // (4 * _RESULT)

    def sketch(self, texts: Sequence[bytes], *, ignore_numbers: bool = False) -> tuple[NDArray[np.uint32], list[int]]:
        """A sketch a text, (n, 128), and the numbers of the texts that the host must do, as it says in the kernel.

        ``texts`` are what :func:`workers.analysis.shingles.folded` gives. Errors as in :mod:`shaders.runtime`.
        """
        sketches = np.full((len(texts), PERMUTATIONS), NOTHING, np.uint32)
        left = [number for number, text in enumerate(texts) if len(text) >= self._bytes]
        batch: list[int] = []
        held = 0
        for number, text in enumerate(texts):
            if not text or len(text) >= self._bytes:
                continue
            if batch and (held + len(text) >= self._bytes or len(batch) == self._texts):
                left += self._dispatch(texts, batch, ignore_numbers, sketches)
                batch, held = [], 0
            batch.append(number)
            held += len(text) + 1
        if batch:
            left += self._dispatch(texts, batch, ignore_numbers, sketches)
        return sketches, sorted(left)

    def _dispatch(
        self, texts: Sequence[bytes], batch: list[int], ignore_numbers: bool, sketches: NDArray[np.uint32]
    ) -> list[int]:
        """Set the sketches of some texts, none of them empty; answers which of them the host must do."""
        runtime, count = self.runtime, len(batch)
        joined = b"\0".join([b"", *(texts[number] for number in batch)])
        pieces = _pieces(np.array([len(texts[number]) for number in batch], np.int64))
        job = [len(pieces), runtime.width(MINHASH) // MINHASH.workgroup, int(ignore_numbers), count]
        buffers = {
            0: runtime.upload(np.array(job, np.uint32), uniform=True),
            1: runtime.upload(np.frombuffer(joined + bytes(-len(joined) % 4), np.uint32)),
            2: runtime.upload(pieces),
            3: self._table,
            4: runtime.empty(4 * _RESULT * count),
        }
        runtime.run([Dispatch(MINHASH, "minhash", buffers, MINHASH.workgroup * len(pieces))])
        found = runtime.read(buffers[4], _RESULT * count)
        sketches[batch] = ~found[: PERMUTATIONS * count].reshape(count, PERMUTATIONS)
        return [number for number, beyond in zip(batch, found[PERMUTATIONS * count :].tolist(), strict=True) if beyond]


def _pieces(lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Begin, end, end of the text and its number for each piece, (pieces, 4); texts lie behind a byte each."""
    begins = np.cumsum(lengths + 1) - lengths
    counts = -(-lengths // _PIECE)
    texts = np.repeat(np.arange(len(lengths)), counts)
    within = np.arange(len(texts)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin, last = begins[texts] + _PIECE * within, (begins + lengths)[texts]
    return np.column_stack([begin, np.minimum(begin + _PIECE, last), last, texts]).astype(np.uint32)
