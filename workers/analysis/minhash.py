"""The MinHash sketch of a document's shingles, on GPU or CPU: 128 numbers that say which sets may be alike.

Of two sets, the share of equal places in their sketches is an estimate of their Jaccard similarity.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shaders.minhash import FACTORS, NOTHING, PERMUTATIONS, GpuMinHash
from shaders.runtime import Runtime, runtime

CPU_ENGINE = "numpy"
# Hashes at a time: their 128 products, 4 MB, stay in a core's cache. Fewer cost calls, more cost memory; measured.
_CHUNK = 1 << 13


def sketch(sets: Sequence[NDArray[np.uint64]], *, adapter: str | None = None) -> NDArray[np.uint32]:
    """A sketch a set of shingle hashes, (n, 128), the same on every device; of an empty set all ``NOTHING``.

    The permutations work on the lower half of each hash. ``adapter`` is part of a GPU's name; without one the CPU does
    it, since a single document is too small for a GPU to pay. Raises :class:`Permanent` with code ``gpu_not_found``.
    """
    halves = [hashes.astype(np.uint32) for hashes in sets]
    if adapter is not None:
        return _on(runtime(adapter)).sketch(halves)
    longest = max(map(len, halves), default=0)
    room = np.empty((PERMUTATIONS, min(_CHUNK, longest)), np.uint32)
    sketches = np.full((len(halves), PERMUTATIONS), NOTHING, np.uint32)
    for row, half in zip(sketches, halves, strict=True):
        for begin in range(0, len(half), _CHUNK):
            part = half[begin : begin + _CHUNK]
            products = np.multiply(FACTORS[:, None], part, out=room[:, : len(part)])
            np.minimum(row, products.min(axis=1), out=row)
    return sketches


def engine(adapter: str | None) -> str:
    """What :func:`sketch` runs on with this adapter: the library's name or the whole one of the GPU; raises as it."""
    return CPU_ENGINE if adapter is None else runtime(adapter).name


@lru_cache(maxsize=4)
def _on(device: Runtime) -> GpuMinHash:
    return GpuMinHash(device)
