"""Which documents may be near-duplicates: locality-sensitive hashing of their sketches into bands.

Two documents are candidates if all rows of one band are equal. At 32 bands of 4 rows a pair of J = .8 is one with a
probability of 1 - 10**-7, of J = .7 with .9998; lower thresholds take 42 bands of 3, which find J = .5 with .996.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shaders.minhash import PERMUTATIONS

_FINE_THRESHOLD = 0.7


def rows_for(threshold: float) -> int:
    """Rows a band, for pairs of this similarity and above."""
    return 4 if threshold >= _FINE_THRESHOLD else 3


class Bands:
    """The buckets of all bands over ``sketches``, (n, 128)."""

    def __init__(self, sketches: NDArray[np.uint32], rows: int) -> None:
        self.rows = rows
        self.count = PERMUTATIONS // rows
        # By band: documents in the order of their buckets, where each stands there, and where its bucket begins.
        self._bands: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]] = []
        for band in range(self.count):
            part = np.ascontiguousarray(sketches[:, band * rows : (band + 1) * rows])
            keys = part.view(np.dtype((np.void, part.itemsize * rows))).reshape(-1)
            _, buckets, sizes = np.unique(keys, return_inverse=True, return_counts=True)
            order = np.argsort(buckets, kind="stable").astype(np.int32)
            places = np.empty(len(order), np.int32)
            places[order] = np.arange(len(order), dtype=np.int32)
            firsts = (np.cumsum(sizes) - sizes).astype(np.int32)[buckets]
            self._bands.append((order, places, firsts))

    def before(self, document: int) -> NDArray[np.int32]:
        """The documents of lower number that share a bucket with this one, ascending."""
        found = [order[firsts[document] : places[document]] for order, places, firsts in self._bands]
        return np.unique(np.concatenate(found))
