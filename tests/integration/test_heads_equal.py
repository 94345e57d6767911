"""The products of the clause heads are the same whole numbers on the GPU, on the CPU and by the definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shaders.heads import SCALE, fixed, multiply
from shaders.runtime import Runtime


def of_length_one(shape: tuple[int, int], axis: int, seed: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=axis, keepdims=True)


@pytest.mark.parametrize(("rows", "depth", "heads"), [(1, 384, 41), (280, 384, 41), (65, 7, 3), (0, 384, 41)])
def test_every_device_gives_the_same_sums(gpu: Runtime, rows: int, depth: int, heads: int) -> None:
    vectors = fixed(of_length_one((rows, depth), 1, 1))
    weights = fixed(of_length_one((depth, heads), 0, 2))
    exact = vectors.astype(np.int64) @ weights.astype(np.int64)
    assert np.array_equal(multiply(vectors, weights, None), exact)
    assert np.array_equal(multiply(vectors, weights, gpu), exact)


def test_the_largest_sum_fits(gpu: Runtime) -> None:
    vector = of_length_one((1, 384), 1, 3)
    whole = fixed(vector)
    assert abs(int(multiply(whole, whole.T.copy(), gpu)[0, 0]) - SCALE * SCALE) < SCALE * 20


def test_vectors_are_sharded_over_what_a_device_binds(gpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, weights = fixed(of_length_one((50, 16), 1, 4)), fixed(of_length_one((16, 5), 0, 5))
    monkeypatch.setattr(gpu, "binding_bytes", 4 * 16 * 7)
    assert np.array_equal(multiply(vectors, weights, gpu), multiply(vectors, weights, None))
