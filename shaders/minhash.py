"""MinHash on the GPU: uploads the hashes of many sets, runs ``minhash.wgsl`` and brings back a sketch for each.

The CPU path in ``workers/analysis/minhash.py`` multiplies by the same factors and gives the same sketches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shaders.catalog import MINHASH
from shaders.runtime import Dispatch, Runtime

PERMUTATIONS: Final = 128
# What the sketch of an empty set consists of; in others it stands only where no hash gave less.
NOTHING: Final = 0xFFFFFFFF
# A longer set is cut into runs, of which each has a workgroup; the host takes the least of them. A thread loops over
# its whole run, and Mesa's lavapipe ends the loops of a thread after 65,535 turns without an error.
_RUN = 1 << 14
_SKETCH_BYTES = 4 * PERMUTATIONS


def _factors() -> NDArray[np.uint32]:
    digests = (hashlib.sha256(f"casemill minhash {number}".encode()).digest() for number in range(PERMUTATIONS))
    return np.array([int.from_bytes(digest[:4], "little") | 1 for digest in digests], np.uint32)


FACTORS: Final = _factors()
"""An odd number a permutation, (128,): multiplied by it modulo 2**32 each number becomes another one.

Kept sketches depend on them, so they come from SHA-256 and not from a random generator that a new release may change.
"""


class GpuMinHash:
    """The kernel on one device; safe to share between threads."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._table = runtime.upload(FACTORS)
        # A dispatch has as many hashes and as many sketches as one binding holds.
        self._hashes = runtime.binding_bytes // 4
        self._runs = runtime.binding_bytes // _SKETCH_BYTES
        self._run = min(_RUN, self._hashes)

    def sketch(self, sets: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint32]:
        """A sketch a set, (n, 128); an empty set's is all :data:`NOTHING`. Errors as in :mod:`shaders.runtime`."""
        sketches = np.full((len(sets), PERMUTATIONS), NOTHING, np.uint32)
        owners: list[int] = []
        runs: list[NDArray[np.uint32]] = []
        held = 0
        for owner, hashes in enumerate(sets):
            for begin in range(0, len(hashes), self._run):
                run = hashes[begin : begin + self._run]
                if held + len(run) > self._hashes or len(runs) == self._runs:
                    self._dispatch(owners, runs, sketches)
                    owners, runs, held = [], [], 0
                owners.append(owner)
                runs.append(run)
                held += len(run)
        if runs:
            self._dispatch(owners, runs, sketches)
        return sketches

    def _dispatch(self, owners: list[int], runs: list[NDArray[np.uint32]], sketches: NDArray[np.uint32]) -> None:
        """Lower the sketches of ``owners`` to what their runs give."""
        runtime, count = self.runtime, len(runs)
        offsets = np.zeros(count + 1, np.uint32)
        np.cumsum([len(run) for run in runs], out=offsets[1:], dtype=np.uint32)
        job = [count, runtime.width(MINHASH) // MINHASH.workgroup, 0, 0]
        buffers = {
            0: runtime.upload(np.array(job, np.uint32), uniform=True),
            1: runtime.upload(np.concatenate(runs)),
            2: runtime.upload(offsets),
            3: self._table,
            4: runtime.empty(_SKETCH_BYTES * count),
        }
        runtime.run([Dispatch(MINHASH, "minhash", buffers, PERMUTATIONS * count)])
        found = runtime.read(buffers[4], PERMUTATIONS * count).reshape(count, PERMUTATIONS)
        rows, firsts = np.unique(owners, return_index=True)
        sketches[rows] = np.minimum(sketches[rows], np.minimum.reduceat(found, firsts, axis=0))
