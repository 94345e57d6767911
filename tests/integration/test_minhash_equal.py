"""Sketches are those of the plain definition, and the same on GPU and CPU, at every border of runs and shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shaders.catalog import KERNELS, MINHASH
from shaders.minhash import FACTORS, NOTHING, PERMUTATIONS, GpuMinHash
from shaders.runtime import Runtime
from workers.analysis import minhash
from workers.analysis.minhash import engine, sketch
from workers.analysis.shingles import shingles

KNOWN = [1674523633, 3057014177, 3846473849]
HASHES = st.lists(st.integers(0, 2**64 - 1), max_size=40)


def reference(hashes: list[int]) -> list[int]:
    products = [[int(factor) * (value % 2**32) % 2**32 for value in hashes] for factor in FACTORS]
    return [min([NOTHING, *row]) for row in products]


def arrays(sets: list[list[int]]) -> list[np.ndarray]:
    return [np.array(hashes, np.uint64) for hashes in sets]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sets=st.lists(HASHES, max_size=5))
@example(sets=[])
@example(sets=[[]])
@example(sets=[[0], [2**64 - 1], [], [2**32], [2**31, 1]])
def test_sketches_are_those_of_the_definition(sets: list[list[int]], gpu: Runtime) -> None:
    expected = np.array([reference(hashes) for hashes in sets], np.uint32).reshape(-1, PERMUTATIONS)
    assert np.array_equal(sketch(arrays(sets)), expected)
    assert np.array_equal(sketch(arrays(sets), adapter=gpu.name), expected)


def test_factors_permute_and_never_change() -> None:
    assert (FACTORS % 2 == 1).all()
    assert len(set(FACTORS.tolist())) == PERMUTATIONS
    assert FACTORS[:3].tolist() == KNOWN, "kept sketches depend on them"


def test_sets_longer_than_a_chunk_a_tile_and_a_run(gpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    lengths = (0, 1, 1023, 1024, 1025, minhash._CHUNK, minhash._CHUNK + 1, 16_384, 16_385, 150_000)
    sets = [random.integers(0, 2**64, length, np.uint64) for length in lengths]
    on_cpu = sketch(sets)
    assert np.array_equal(sketch(sets, adapter=gpu.name), on_cpu)
    assert [row.tolist() for row in on_cpu[:2]] == [reference(part.tolist()) for part in sets[:2]]
    monkeypatch.setattr(minhash, "_CHUNK", 1000)
    assert np.array_equal(sketch(sets), on_cpu)


@pytest.mark.parametrize(("hashes", "runs", "run"), [(10, 3, 10), (4, 100, 4), (1000, 1, 7), (64, 5, 16)])
def test_shards_join_without_a_seam(gpu: Runtime, hashes: int, runs: int, run: int) -> None:
    """As on a device whose bindings hold next to nothing."""
    random = np.random.default_rng(6)
    sets = [random.integers(0, 2**32, length, np.uint32) for length in (0, 3, 10, 0, 33, 1, 100)]
    small = GpuMinHash(gpu)
    small._hashes, small._runs, small._run = hashes, runs, run
    assert np.array_equal(small.sketch(sets), GpuMinHash(gpu).sketch(sets))


def test_more_sets_than_a_row_of_workgroups(gpu: Runtime) -> None:
    sets = [np.array([number], np.uint64) for number in range(70_000)]
    found = sketch(sets, adapter=gpu.name)
    assert np.array_equal(found, np.arange(70_000, dtype=np.uint32)[:, None] * FACTORS)


def test_contracts_have_the_same_sketches(gpu: Runtime, data: Path) -> None:
    texts = sorted((data / "near_duplicates" / "texts").glob("*.txt"))[::4]
    sets = [shingles(path.read_bytes().decode()) for path in texts]
    assert np.array_equal(sketch(sets, adapter=gpu.name), sketch(sets))


def test_the_engine_is_named(gpu: Runtime) -> None:
    assert MINHASH in KERNELS
    assert engine(None) == "numpy"
    assert engine(gpu.name[:4]) == gpu.name
