"""Near-duplicates among documents: candidates by their sketches, each verified exactly, and the clusters they form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.analysis.candidates import Bands, rows_for
from workers.analysis.shingles import Hashes, jaccard

# A matter of ten thousand letters from one template has fifty million pairs, which nobody reads.
MAX_PAIRS = 50_000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two documents, by number and ``a`` the lower, with their exact similarity, rounded to 6 places."""

    a: int
    b: int
    jaccard: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """Documents that are connected by pairs; the representative is the most similar to all others.

    ``members`` has each with its exact similarity to the representative, which comes first, then the most similar.
    """

    representative: int
    members: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """``pairs`` ascending, ``clusters`` the largest first.

    Without ``all_pairs`` there were more pairs than :data:`MAX_PAIRS`: from then on only those were looked for that
    join two clusters, so that the clusters are complete and the pairs within them are not. ``verified`` counts the
    pairs whose similarity was computed.
    """

    pairs: tuple[Pair, ...]
    clusters: tuple[Cluster, ...]
    all_pairs: bool
    verified: int
    bands: int
    rows: int


def find_duplicates(
    sketches: NDArray[np.uint32],
    load: Callable[[int], Hashes],
    *,
    threshold: float,
    tick: Callable[[], None],
    most_pairs: int = MAX_PAIRS,
) -> Duplicates:
    """The near-duplicates among documents that all have shingles, by their sketches (n, 128); ``load`` answers them.

    A pair counts if its similarity as it is shown, rounded, is ``threshold`` or above. ``tick`` is called for every
    document and every similarity that is computed.
    """
    bands = Bands(sketches, rows_for(threshold))
    parents = list(range(len(sketches)))
    pairs: list[Pair] = []
    verified, all_pairs = 0, True
    for b in range(len(sketches)):
        tick()
        candidates: list[int] = bands.before(b).tolist()
        for a in candidates:
            if len(pairs) >= most_pairs and _root(parents, a) == _root(parents, b):
                all_pairs = False
                continue
            one, other = load(a), load(b)
            # The smaller set ÷ the larger is the most that the similarity can be.
            if round(min(len(one), len(other)) / max(len(one), len(other)), 6) < threshold:
                continue
            tick()
            verified += 1
            similarity = jaccard(one, other)
            if similarity >= threshold:
                pairs.append(Pair(a, b, similarity))
                parents[_root(parents, b)] = _root(parents, a)
    pairs.sort(key=lambda pair: (pair.a, pair.b))
    clusters = _clusters(pairs, parents, load, tick)
    return Duplicates(tuple(pairs), clusters, all_pairs, verified, bands.count, bands.rows)


def _root(parents: list[int], document: int) -> int:
    """The document that stands for the cluster of this one; shortens the way to it."""
    while parents[document] != document:
        parents[document] = parents[parents[document]]
        document = parents[document]
    return document


def _clusters(
    pairs: Sequence[Pair],
    parents: list[int],
    load: Callable[[int], Hashes],
    tick: Callable[[], None],
) -> tuple[Cluster, ...]:
    known = {(pair.a, pair.b): pair.jaccard for pair in pairs}
    nearness = [0.0] * len(parents)
    for pair in pairs:
        nearness[pair.a] += pair.jaccard
        nearness[pair.b] += pair.jaccard
    groups: dict[int, list[int]] = {}
    for document in range(len(parents)):
        if nearness[document]:
            groups.setdefault(_root(parents, document), []).append(document)

    def similarity(one: int, other: int) -> float:
        pair = (min(one, other), max(one, other))
        if one == other or pair in known:
            return known.get(pair, 1.0)
        tick()
        return jaccard(load(one), load(other))

    found: list[Cluster] = []
    for group in groups.values():
        # Among equals the longest, then the first uploaded.
        chosen = max(group, key=lambda k: (round(nearness[k], 6), len(load(k)), -k))
        members = [(document, similarity(chosen, document)) for document in group]
        members.sort(key=lambda member: (member[0] != chosen, -member[1], member[0]))
        found.append(Cluster(chosen, tuple(members)))
    return tuple(sorted(found, key=lambda cluster: (-len(cluster.members), cluster.members[0][0])))
