"""The order of a search's hits: nearest vectors alone, or together with the words that clauses share with the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.analysis.bm25 import Words, bm25
from workers.analysis.similarity import Nearest, Vectors, cosines, nearest

# Clauses that are looked at closely, the best of each half.
POOL: Final = 200
# What a clause's words count beside its vector, and how far a query moves towards the mean of the clauses found first.
# Chosen on the training queries of ACORD, see docs/benchmarks.md.
WORDS_WEIGHT: Final = 0.2
FEEDBACK: Final = 0.7
FEEDBACK_CLAUSES: Final = 10
# Clauses for each one that feedback takes: in a small collection the first ones found are not all to the point.
FEEDBACK_SHARE: Final = 20


@dataclass(frozen=True, slots=True)
class Hit:
    """A clause by its number; ``score`` gives the order, ``cosine`` and ``bm25`` are its halves."""

    clause: int
    score: float
    cosine: float
    bm25: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is searched: ``vectors`` (n, d) of parts of clauses, each part's clause in ``owners`` (n), and the words."""

    vectors: Vectors
    owners: NDArray[np.int64]
    words: Sequence[Words]


def similar(corpus: Corpus, queries: Vectors, k: int, *, gpu: bool, adapter: str | None) -> tuple[list[list[Hit]], str]:
    """The ``k`` clauses nearest to each query, exactly, and the engine; a clause is as near as its nearest part."""
    nearby, engine = _nearest_clauses(corpus, queries, k, gpu=gpu, adapter=adapter)
    return [[Hit(clause, cosine, cosine, 0.0) for clause, cosine in found] for found in nearby], engine


def hybrid(
    corpus: Corpus, queries: Vectors, texts: Sequence[str], k: int, *, gpu: bool, adapter: str | None
) -> tuple[list[list[Hit]], str]:
    """The best ``k`` clauses for each query by vectors and words, among the best :data:`POOL` or more of each half.

    Done twice: the second time with the query's vector moved towards what was found the first time.
    """
    pool = max(POOL, 2 * k)
    lexical = [bm25(corpus.words, text) for text in texts]
    nearby, engine = _nearest_clauses(corpus, queries, pool, gpu=gpu, adapter=adapter)
    hits = _combined(corpus, queries, nearby, lexical, pool)
    moved = np.array([_moved(corpus, query, found) for query, found in zip(queries, hits, strict=True)], np.float32)
    if not np.array_equal(moved, queries):
        nearby, engine = _nearest_clauses(corpus, moved, pool, gpu=gpu, adapter=adapter)
        hits = _combined(corpus, moved, nearby, lexical, pool)
    return [found[:k] for found in hits], engine


def _moved(corpus: Corpus, query: NDArray[np.float32], hits: list[Hit]) -> NDArray[np.float32]:
    """The query's vector after feedback, of length 1; where there are few clauses, as it was."""
    taken = min(FEEDBACK_CLAUSES, sum(len(words.lengths) for words in corpus.words) // FEEDBACK_SHARE)
    if not taken:
        return query
    means = [corpus.vectors[corpus.owners == hit.clause].mean(axis=0) for hit in hits[:taken]]
    moved = (1 - FEEDBACK) * query + FEEDBACK * np.mean(means, axis=0)
    return (moved / np.linalg.norm(moved)).astype(np.float32)


def _combined(
    corpus: Corpus,
    queries: Vectors,
    nearby: list[list[tuple[int, float]]],
    lexical: list[NDArray[np.float64]],
    pool: int,
) -> list[list[Hit]]:
    """The clauses of both halves for each query, best first."""
    return [
        _weighed(corpus, query, dict(found), scores, pool)
        for query, found, scores in zip(queries, nearby, lexical, strict=True)
    ]


def _weighed(
    corpus: Corpus, query: NDArray[np.float32], cosine: dict[int, float], lexical: NDArray[np.float64], pool: int
) -> list[Hit]:
    """One query's clauses by the weighted sum of the cosine and the share of the best BM25 score."""
    order = np.lexsort((np.arange(len(lexical)), -lexical))[:pool]
    others = np.array([clause for clause in order if lexical[clause] > 0 and int(clause) not in cosine], np.int64)
    parts = np.flatnonzero(np.isin(corpus.owners, others))
    for part, near in zip(parts, cosines(corpus.vectors[parts], query), strict=True):
        clause = int(corpus.owners[part])
        cosine[clause] = max(cosine.get(clause, -1.0), float(near))
    most = max(float(lexical.max(initial=0.0)), 1e-9)
    hits = [
        Hit(
            clause,
            (1 - WORDS_WEIGHT) * near + WORDS_WEIGHT * float(lexical[clause]) / most,
            near,
            float(lexical[clause]),
        )
        for clause, near in cosine.items()
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.clause))


def _nearest_clauses(
    corpus: Corpus, queries: Vectors, k: int, *, gpu: bool, adapter: str | None
) -> tuple[list[list[tuple[int, float]]], str]:
    """The nearest ``k`` clauses of each query with their cosines: more parts are asked for until they make ``k``."""
    wanted = min(k, len(np.unique(corpus.owners)))
    asked = k
    while True:
        found = nearest(corpus.vectors, queries, asked, gpu=gpu, adapter=adapter)
        best = [_first_parts(corpus.owners, found, query) for query in range(len(queries))]
        if all(len(one) >= wanted for one in best):
            return [one[:k] for one in best], found.engine
        asked *= 2


def _first_parts(owners: NDArray[np.int64], found: Nearest, query: int) -> list[tuple[int, float]]:
    best: dict[int, float] = {}
    for part, score in zip(found.places[query], found.scores[query], strict=True):
        best.setdefault(int(owners[part]), float(score))
    # Parts of equal score come by place, so that their clauses do.
    return list(best.items())
