"""Products of vectors with the clause heads in whole numbers: equal on every GPU and on the CPU, bit by bit.

Vectors and the columns of the weights have length 1 before they are scaled by 2**13, so no sum of products exceeds
2**26 and its rounding: by the inequality of Cauchy and Schwarz it fits 32 bits.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shaders.catalog import HEADS
from shaders.runtime import Dispatch, Runtime

SCALE: Final = 1 << 13


def fixed(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """``values`` of length 1, by row or by column, as whole multiples of 1 / :data:`SCALE`."""
    return np.rint(values.astype(np.float64) * SCALE).astype(np.int32)


def multiply(vectors: NDArray[np.int32], weights: NDArray[np.int32], runtime: Runtime | None) -> NDArray[np.int32]:
    """The product (n, heads) of (n, d) and (d, heads), both from :func:`fixed`; without ``runtime`` on the CPU.

    Errors as in :mod:`shaders.runtime`.
    """
    if runtime is None:
        # Whole numbers below 2**53 are exact in double precision, which libraries multiply fastest.
        return (vectors.astype(np.float64) @ weights.astype(np.float64)).astype(np.int32)
    depth, heads = weights.shape
    rows = max(1, runtime.binding_bytes // (4 * max(depth, heads)))
    held = runtime.upload(np.ascontiguousarray(weights))
    parts = [_product(runtime, vectors[at : at + rows], held, depth, heads) for at in range(0, len(vectors), rows)]
    return np.concatenate(parts) if parts else np.zeros((0, heads), np.int32)


def _product(
    runtime: Runtime, vectors: NDArray[np.int32], weights: object, depth: int, heads: int
) -> NDArray[np.int32]:
    count = len(vectors) * heads
    job = np.array([count, heads, depth, runtime.width(HEADS)], np.uint32)
    buffers = {
        0: runtime.upload(job, uniform=True),
        1: runtime.upload(np.ascontiguousarray(vectors)),
        2: weights,
        3: runtime.empty(4 * count),
    }
    runtime.run([Dispatch(HEADS, "multiply", buffers, count)])
    return runtime.read(buffers[3], count).view(np.int32).reshape(-1, heads)
