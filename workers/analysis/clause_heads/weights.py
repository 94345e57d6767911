"""The weights of the clause heads: what training writes and step ``clauses`` reads."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SIDES: Final = 18
"""Numbers that :mod:`context` looks at beside each sentence."""
SIGNS: Final = 11
"""Numbers that :mod:`context` draws from a document for each head."""


_SMALL: Final = ("lexical_bias", "dense_bias", "blend", "context", "presence", "probe")


@dataclass(frozen=True, eq=False)
class Weights:
    """``h`` heads over ``v`` runs of words and vectors of ``d`` numbers.

    ``lexical`` (v, h) over ``rarity`` (v) and ``dense`` (d, h), with a bias (h) each, give a sentence's logits by its
    words and by its vector; ``blend`` (h, 3) mixes both (words, vector, bias); ``context`` (h, SIDES + 1) gives the
    second ones, of it among its neighbours; ``presence`` (h, SIGNS + 1) those of the document, the last column its
    bias. ``probe`` (d) is the vector of :data:`PROBE`, which tells whether vectors are of the space that the heads were
    trained in. ``heads`` are ids of categories.
    """

    heads: tuple[str, ...]
    vocabulary: tuple[str, ...]
    rarity: Floats
    lexical: Floats
    lexical_bias: Floats
    dense: Floats
    dense_bias: Floats
    blend: Floats
    context: Floats
    presence: Floats
    probe: Floats
    places: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {run: place for place, run in enumerate(self.vocabulary)})

    def to_npz(self) -> bytes:
        """The weights as a compressed file; ``lexical`` in 8 bits with a scale for each head."""
        scale = np.abs(self.lexical).max(axis=0) / 127
        scale[scale == 0] = 1
        output = io.BytesIO()
        np.savez_compressed(
            output,
            heads=np.frombuffer("\n".join(self.heads).encode(), np.uint8),
            vocabulary=np.frombuffer("\n".join(self.vocabulary).encode(), np.uint8),
            rarity=self.rarity.astype(np.float16),
            lexical=np.rint(self.lexical / scale).astype(np.int8),
            scale=scale.astype(np.float32),
            dense=self.dense.astype(np.float16),
            **{name: getattr(self, name).astype(np.float32) for name in _SMALL},
        )
        return output.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> Weights:
        """The weights that :meth:`to_npz` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found: dict[str, Any] = {name: arrays[name] for name in arrays.files}
        scale = found.pop("scale")
        for name in ("heads", "vocabulary"):
            found[name] = tuple(found[name].tobytes().decode().split("\n"))
        floats = {
            name: value.astype(np.float32) for name, value in found.items() if name not in ("heads", "vocabulary")
        }
        floats["lexical"] *= scale
        return cls(heads=found["heads"], vocabulary=found["vocabulary"], **floats)


PROBE: Final = "This Agreement shall be governed by the laws of the State of New York."


def same_space(weights: Weights, probe: Floats) -> bool:
    """Whether ``probe``, a model's vector of :data:`PROBE`, is that of the model which the heads were trained with."""
    return probe.shape == weights.probe.shape and float(probe @ weights.probe) > 0.99


@cache
def shipped() -> Weights:
    """The weights that come with Casemill."""
    return Weights.from_npz(_file().read_bytes())


@cache
def shipped_version() -> str:
    """SHA-256 of the shipped weights, in hexadecimal."""
    return hashlib.sha256(_file().read_bytes()).hexdigest()


def _file() -> Any:
    return resources.files("workers.analysis.clause_heads").joinpath("weights.npz")
