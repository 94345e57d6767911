"""Near-duplicates: all labelled pairs and no other, clusters with a representative, and what too many pairs cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shaders.minhash import PERMUTATIONS
from workers.analysis.candidates import Bands, rows_for
from workers.analysis.duplicates import Duplicates, find_duplicates
from workers.analysis.minhash import sketch
from workers.analysis.shingles import Hashes, jaccard, shingles


def found(sets: list[Hashes], threshold: float = 0.8, **more: int) -> Duplicates:
    loaded: list[int] = []

    def load(number: int) -> Hashes:
        loaded.append(number)
        return sets[number]

    result = find_duplicates(
        np.array([sketch(part) for part in sets], np.uint32).reshape(-1, PERMUTATIONS),
        load,
        threshold=threshold,
        tick=lambda: None,
        **more,
    )
    assert len(loaded) >= 2 * result.verified
    return result


def versions(count: int, *, words: int = 400, changed: int = 1, seed: int = 1) -> list[Hashes]:
    """One text in versions, of which each has other words changed."""
    random = np.random.default_rng(seed)
    base = [f"w{number}" for number in random.integers(0, 10**6, words)]
    texts = []
    for version in range(count):
        text = list(base)
        for place in random.integers(0, words, changed if version else 0):
            text[place] = f"changed{version}"
        texts.append(" ".join(text))
    return [shingles(text) for text in texts]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.95])
def test_the_labelled_pairs_are_found_and_no_others(data: Path, threshold: float) -> None:
    """The bar is a precision of 1 and a recall of .99 at .8; all are found at every threshold."""
    folder = data / "near_duplicates"
    names = sorted(path.stem for path in (folder / "texts").glob("*.txt"))
    sets = [shingles((folder / "texts" / f"{name}.txt").read_bytes().decode()) for name in names]
    labelled = [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()]
    expected = {(row["a"], row["b"]): row["jaccard"] for row in labelled if row["jaccard"] >= threshold}
    result = found(sets, threshold)
    assert {(names[pair.a], names[pair.b]): pair.jaccard for pair in result.pairs} == expected
    assert result.verified < 700, "of 79,800 pairs"
    assert result.all_pairs


def test_clusters_are_what_is_connected_and_their_head_is_nearest_to_all() -> None:
    first, second, alone = versions(5, seed=1), versions(3, seed=2), versions(1, seed=3)
    sets = [second[0], first[1], alone[0], first[0], second[1], first[2], first[3], second[2], first[4]]
    result = found(sets)
    assert [sorted(member for member, _ in cluster.members) for cluster in result.clusters] == [
        [1, 3, 5, 6, 8],
        [0, 4, 7],
    ]
    assert [cluster.representative for cluster in result.clusters] == [3, 0], "versions differ less from the base"
    for cluster in result.clusters:
        assert cluster.members[0] == (cluster.representative, 1.0)
        shown = [similarity for _, similarity in cluster.members]
        assert shown == sorted(shown, reverse=True)
        for member, similarity in cluster.members[1:]:
            assert similarity == jaccard(sets[member], sets[cluster.representative])


def test_a_chain_is_one_cluster_though_its_ends_are_unlike() -> None:
    words = [f"w{number}" for number in range(600)]
    sets = [shingles(" ".join(words[start : start + 400])) for start in (0, 40, 80, 120, 160)]
    result = found(sets)
    assert {(pair.a, pair.b) for pair in result.pairs} == {(0, 1), (1, 2), (2, 3), (3, 4)}
    (cluster,) = result.clusters
    assert len(cluster.members) == 5
    assert cluster.representative in (1, 2, 3)
    assert min(similarity for _, similarity in cluster.members) < 0.8


def test_many_copies_have_complete_clusters_and_as_many_pairs_as_are_read() -> None:
    sets = [*versions(60, seed=1), *versions(40, seed=2)]
    whole = found(sets)
    assert (len(whole.pairs), whole.all_pairs) == (60 * 59 // 2 + 40 * 39 // 2, True)
    cut = found(sets, most_pairs=100)
    assert not cut.all_pairs
    assert 100 <= len(cut.pairs) <= 200
    assert cut.verified < 1000
    members = [[sorted(member for member, _ in cluster.members) for cluster in it.clusters] for it in (whole, cut)]
    assert members[0] == members[1] == [list(range(60)), list(range(60, 100))]
    assert set(cut.pairs) <= set(whole.pairs)


def test_a_pair_at_the_threshold_counts_and_one_below_does_not() -> None:
    one = np.arange(1, 10, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    one.sort()
    (pair,) = found([one, one[:8].copy()], threshold=round(8 / 9, 6)).pairs
    assert pair.jaccard == 0.888889
    assert found([one, one[:8].copy()], threshold=0.888890).pairs == ()
    assert found([one, one.copy()], threshold=1.0).pairs[0].jaccard == 1.0


def test_nothing_and_one_document_have_no_duplicates() -> None:
    for sets in ([], versions(1)):
        result = found(sets)
        assert (result.pairs, result.clusters, result.all_pairs) == ((), (), True)


def test_candidates_are_those_with_an_equal_band() -> None:
    random = np.random.default_rng(9)
    sketches = random.integers(0, 2, (30, 128), np.uint32)
    for rows in (rows_for(0.8), rows_for(0.5)):
        bands = Bands(sketches, rows)
        assert bands.count == 128 // rows
        for document in range(30):
            expected = [
                other
                for other in range(document)
                if any(
                    np.array_equal(*sketches[[other, document], at : at + rows])
                    for at in range(0, rows * bands.count, rows)
                )
            ]
            assert bands.before(document).tolist() == expected
