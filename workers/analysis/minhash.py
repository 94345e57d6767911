"""The MinHash sketch of a text, on GPU or CPU: 128 numbers that say which texts may have the same shingles.

Of two texts, the share of equal places in their sketches is an estimate of their Jaccard similarity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shaders.minhash import FACTORS, NOTHING, PERMUTATIONS, GpuMinHash
from shaders.runtime import Runtime, runtime
from workers.analysis.shingles import Hashes, shingles

CPU_ENGINE = "numpy"
# Hashes at a time: their 128 products, 4 MB, stay in a core's cache. Fewer cost calls, more cost memory; measured.
_CHUNK = 1 << 13


def sketches(
    texts: Sequence[str],
    *,
    ignore_numbers: bool = False,
    adapter: str | None = None,
    tick: Callable[[], None] | None = None,
) -> NDArray[np.uint32]:
    """A sketch of the shingles of each text, (n, 128), the same on every device; of one without any all ``NOTHING``.

    ``adapter`` is part of a GPU's name; without one the CPU does it. ``ignore_numbers`` and ``tick`` are those of
    :func:`shingles`. Raises :class:`Permanent` with code ``gpu_not_found``.
    """
    found, left = np.empty((len(texts), PERMUTATIONS), np.uint32), range(len(texts))
    if adapter is not None:
        gpu = _on(runtime(adapter))
        encoded = (text.encode("utf-8", "surrogatepass") for text in texts)
        found, left = gpu.sketch(encoded, ignore_numbers=ignore_numbers)
    for number in left:
        found[number] = sketch(shingles(texts[number], ignore_numbers=ignore_numbers, tick=tick))
    return found


def sketch(hashes: Hashes) -> NDArray[np.uint32]:
    """The sketch of a set of shingles, (128,), on the CPU; the permutations work on the lower half of each hash."""
    half, found = hashes.astype(np.uint32), np.full(PERMUTATIONS, NOTHING, np.uint32)
    room = np.empty((PERMUTATIONS, min(_CHUNK, len(half))), np.uint32)
    for begin in range(0, len(half), _CHUNK):
        part = half[begin : begin + _CHUNK]
        products = np.multiply(FACTORS[:, None], part, out=room[:, : len(part)])
        np.minimum(found, products.min(axis=1), out=found)
    return found


def engine(adapter: str | None) -> str:
    """What :func:`sketches` runs on with this adapter: the library's name or the whole one of the GPU; raises as it."""
    return CPU_ENGINE if adapter is None else runtime(adapter).name


@lru_cache(maxsize=4)
def _on(device: Runtime) -> GpuMinHash:
    return GpuMinHash(device)
