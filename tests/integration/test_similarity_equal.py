"""The nearest vectors on CPU and GPU are those of a search through all of them, to the last bit, ties by place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shaders.runtime import Runtime
from shaders.similarity import MAX_KEPT, GpuVectors
from workers.analysis import similarity
from workers.analysis.similarity import CPU, Nearest, Vectors, nearest, nearest_on


def brute_force(vectors: Vectors, queries: Vectors, k: int) -> list[list[tuple[float, int]]]:
    """The definition, written anew: all float64 scores in order, of equal ones the first place."""
    wide = vectors.astype(np.float64)
    return [
        sorted((-float((row * query).sum()), place) for place, row in enumerate(wide))[:k]
        for query in queries.astype(np.float64)
    ]


def check(found: Nearest, vectors: Vectors, queries: Vectors, k: int) -> None:
    expected = brute_force(vectors, queries, k)
    for places, scores, rows in zip(found.places, found.scores, expected, strict=True):
        assert places.tolist() == [place for _, place in rows]
        assert scores.tolist() == [-score for score, _ in rows]


def check_candidates(vectors: Vectors, queries: Vectors, keep: int, runtime: Any) -> None:
    """Of small whole numbers, whose products are exact in any order of the sums."""
    scores, places = GpuVectors(vectors, runtime).candidates(queries, keep)
    products = queries @ vectors.T
    expected = np.argsort(-products, axis=1, kind="stable")[:, :keep]
    assert np.array_equal(places, expected)
    assert np.array_equal(scores, np.take_along_axis(products, expected, 1))


def unit(rng: np.random.Generator, count: int, width: int) -> Vectors:
    vectors = rng.standard_normal((count, width)).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-9))


@st.composite
def searches(draw: st.DrawFn, most: int = 1200) -> tuple[Vectors, Vectors, int]:
    """Vectors of which many are equal, near to each other or zero, queries of their kind, and any k."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, width = draw(st.integers(0, most)), draw(st.sampled_from([1, 3, 4, 30, 64, 65]))
    kinds = unit(rng, draw(st.integers(1, 40)), width)
    kinds[0] *= draw(st.sampled_from([0, 1]))
    vectors = kinds[rng.integers(len(kinds), size=count)]
    if draw(st.booleans()):
        vectors = vectors + rng.standard_normal(vectors.shape).astype(np.float32) * np.float32(1e-7)
    own = unit(rng, count, width)
    vectors = np.where(rng.random((count, 1)) < draw(st.sampled_from([0.0, 0.3, 0.9])), own, vectors)
    queries = kinds[rng.integers(len(kinds), size=draw(st.integers(1, 5)))]
    return vectors, queries, draw(st.integers(1, 50))


@given(searches())
@settings(max_examples=60, deadline=None)
def test_the_cpu_gives_the_best_of_all(search: tuple[Vectors, Vectors, int]) -> None:
    check(nearest(*search), *search)


def test_many_blocks_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_BLOCK_SCORES", 64)
    monkeypatch.setattr(similarity, "_FIRST", 7)
    rng = np.random.default_rng(3)
    vectors, queries = unit(rng, 300, 12), unit(rng, 6, 12)
    vectors[100:150] = vectors[250]
    queries[0] = vectors[250]
    check(nearest(vectors, queries, 20), vectors, queries, 20)


# One adapter serves all examples; a software adapter takes its time to compile.
@given(searches(most=2500))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_gpu_gives_the_same(gpu: Runtime, search: tuple[Vectors, Vectors, int]) -> None:
    vectors, queries, k = search
    check(nearest_on(GpuVectors(vectors, gpu), vectors, queries, k), vectors, queries, k)


def test_shards_and_groups_of_queries(gpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "binding_bytes", 64 * 4 * 64 * 3)
    rng = np.random.default_rng(5)
    vectors, queries = unit(rng, 500, 16), unit(rng, 70, 16)
    vectors[190:195] = queries[69]
    found = nearest_on(GpuVectors(vectors, gpu), vectors, queries, 5)
    assert found.engine == gpu.name
    check(found, vectors, queries, 5)


def test_the_candidates_of_the_gpu_are_the_best_alone(gpu: Runtime) -> None:
    """What nearest_on is spared by a second look must hold: candidates come best first and miss nothing."""
    rng = np.random.default_rng(7)
    vectors, queries = unit(rng, 3000, 20), unit(rng, 3, 20)
    scores, places = GpuVectors(vectors, gpu).candidates(queries, 40)
    products = queries @ vectors.T
    for query in range(3):
        assert set(places[query]) == set(np.argsort(-products[query])[:40].tolist())
    assert np.abs(scores - np.take_along_axis(products, places, 1)).max() < 1e-6
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("keep", [1, 7, 40, 128, 512])
def test_only_tiles_with_a_great_score_are_looked_at(gpu: Runtime, keep: int) -> None:
    """Of these numbers many products are equal, within tiles and across."""
    rng = np.random.default_rng(17)
    vectors = rng.integers(-2, 3, (9_001, 6)).astype(np.float32)
    queries = rng.integers(-2, 3, (67, 6)).astype(np.float32)
    vectors[-1] = queries[0] = 3
    check_candidates(vectors, queries, keep, gpu)


def test_many_search_at_once_and_again(gpu: Runtime) -> None:
    """With the memory of a search before them, of as many queries or of others."""
    rng = np.random.default_rng(19)
    vectors, queries = unit(rng, 1500, 12), unit(rng, 40, 12)
    resident = GpuVectors(vectors, gpu)

    def one(count: int) -> None:
        check(nearest_on(resident, vectors, queries[count : 2 * count], 3), vectors, queries[count : 2 * count], 3)

    for count in (1, 1, 20, 7, 7):
        one(count)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(one, [20, 7, 20, 1, 20, 20, 7, 7]))


def test_what_float32_cannot_tell_apart_is_told_apart(gpu: Runtime) -> None:
    rng = np.random.default_rng(13)
    query = unit(rng, 1, 64)
    vectors = (query + rng.standard_normal((400, 64)) * 1e-8).astype(np.float32)
    check(nearest_on(GpuVectors(vectors, gpu), vectors, query, 5), vectors, query, 5)
    check(nearest(vectors, query, 5), vectors, query, 5)


def test_more_than_the_gpu_keeps_is_the_cpus(gpu: Runtime) -> None:
    rng = np.random.default_rng(9)
    vectors, queries = unit(rng, 700, 8), unit(rng, 2, 8)
    found = nearest_on(GpuVectors(vectors, gpu), vectors, queries, MAX_KEPT)
    assert found.engine == CPU
    check(found, vectors, queries, MAX_KEPT)
    with pytest.raises(ValueError, match="512"):
        GpuVectors(vectors, gpu).candidates(queries, MAX_KEPT + 1)
