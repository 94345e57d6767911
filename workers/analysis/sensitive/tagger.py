"""Names, places, organisations and addresses by a linear chain CRF over tokens, computed with numpy.

``training/train.py`` fits the weights with CRFsuite. A token's score for a label is a sum over features of the tokens
three before to three behind it and over pairs of neighbours, so each distinct token is looked up once for a text,
and a text of any length costs the same for each of its tokens.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from workers.analysis.sensitive.datum import DataType, Datum
from workers.analysis.sensitive.features import kind, token_features
from workers.analysis.sensitive.tokens import Tokens
from workers.analysis.stretches import Check, unchecked, watched

REACH = range(-3, 4)
TAGGED = (
    DataType.PERSON,
    DataType.STREET_ADDRESS,
    DataType.GPE,
    DataType.ORGANIZATION,
    DataType.NRP,
    DataType.TITLE,
    DataType.ZIP_CODE,
)
LABELS = ("O", *(f"{part}-{name}" for name in TAGGED for part in "BI"))
"""Outside, and for each type its first token and its further ones."""
_WINDOW, _MARGIN = 192, 24
_BLOCK = 200_000  # tokens whose scores are in memory at once

_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """``rows`` names a feature's row in ``table`` (features, labels); ``moves`` (labels, labels) scores neighbours.

    A feature is ``<place>|<feature of the token there>``, or ``<place>&<kind> <kind>`` for a pair that begins there.
    """

    rows: dict[str, int]
    table: _Floats
    moves: _Floats

    @classmethod
    def from_bytes(cls, data: bytes) -> Weights:
        """The weights that :meth:`to_bytes` wrote."""
        with np.load(io.BytesIO(data)) as file:
            names = file["names"].tobytes().decode().split("\n")
            table = file["table"].astype(np.float32) * file["scale"]
            return cls({name: row for row, name in enumerate(names)}, table, file["moves"].astype(np.float32))

    def to_bytes(self) -> bytes:
        """A compressed npz, each weight a byte."""
        scale = np.float32(np.abs(self.table).max() / 127)
        names = np.frombuffer("\n".join(self.rows).encode(), np.uint8)
        file = io.BytesIO()
        table = np.rint(self.table / scale).astype(np.int8)
        np.savez_compressed(file, names=names, table=table, scale=scale, moves=self.moves.astype(np.float16))
        return file.getvalue()

    def sum_of(self, names: list[str]) -> _Floats:
        """The scores of each label that the named features give together."""
        rows = [row for name in names if (row := self.rows.get(name)) is not None]
        return self.table[rows].sum(axis=0)


@cache
def shipped() -> Weights:
    """The weights that come along."""
    return Weights.from_bytes(resources.files("workers.analysis.sensitive").joinpath("weights.npz").read_bytes())


def tag(tokens: Tokens, weights: Weights | None = None, check: Check = unchecked) -> list[Datum]:
    """The names and addresses among ``tokens``, in order of place; ``weights`` are those that come along."""
    chances = label_chances(tokens.keys, weights or shipped(), check)[1:-1]
    labels = chances.argmax(axis=1)
    # A structured datum is one already: no name runs over it.
    labels[[number for number, key in enumerate(tokens.keys[1:-1]) if key[1] == "<" and len(key) > 2]] = 0
    found: list[Datum] = []
    run: list[int] = []
    for place in watched([*np.flatnonzero(labels).tolist(), -1], check):
        if run and (place != run[-1] + 1 or labels[place] % 2 or _type(labels, place) != _type(labels, run[-1])):
            found.append(_datum(tokens, labels, chances, run))
            run = []
        run.append(place)
    return found


def _type(labels: NDArray[np.intp], place: int) -> int:
    return (int(labels[place]) - 1) // 2


def _datum(tokens: Tokens, labels: NDArray[np.intp], chances: _Floats, run: list[int]) -> Datum:
    kind_of = _type(labels, run[0])
    score = float(chances[run[0] : run[-1] + 1, 1 + 2 * kind_of : 3 + 2 * kind_of].sum(axis=1).mean())
    why = "by its words, their neighbours and lists of names"
    return Datum(TAGGED[kind_of], tokens.starts[run[0]], tokens.ends[run[-1]], round(score, 4), why)


def label_chances(keys: list[str], weights: Weights, check: Check = unchecked) -> _Floats:
    """The chance of each label for each token, (tokens, labels)."""
    blocks: list[_Floats] = []
    for start in range(0, len(keys), _BLOCK):
        first, last = max(0, start - _MARGIN), min(len(keys), start + _BLOCK + _MARGIN)
        chances = _chain(_scores(keys[first:last], weights, check), weights.moves)
        blocks.append(chances[start - first : start - first + _BLOCK])
    return np.concatenate(blocks)


def _scores(keys: list[str], weights: Weights, check: Check) -> _Floats:
    """Each token's score for each label by its own and its neighbours' features, (tokens, labels)."""
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int32, len(keys))
    features = [token_features(key) for key in numbers]
    scores = np.zeros((len(keys), len(LABELS)), np.float32)
    for place in watched(REACH, check):
        names = ([f"{place}|{feature}" for feature in found] for found in features)
        table = np.stack([weights.sum_of(found) for found in names])
        low, high = max(0, -place), min(len(keys), len(keys) - place)
        if low < high:
            scores[low:high] += table[ids[low + place : high + place]]
    kinds: dict[str, int] = {}
    kind_of = np.array([kinds.setdefault(kind(key), len(kinds)) for key in numbers], np.int64)[ids]
    pairs, where = np.unique(kind_of[:-1] * len(kinds) + kind_of[1:], return_inverse=True)
    names_of = list(kinds)
    for place in watched(PAIRS, check):
        table = np.stack(
            [
                weights.sum_of([f"{place}&{names_of[pair // len(kinds)]} {names_of[pair % len(kinds)]}"])
                for pair in pairs
            ]
        )
        low, high = max(0, -place), min(len(keys), len(keys) - 1 - place)
        if low < high:
            scores[low:high] += table[where[low + place : high + place]]
    return scores


PAIRS = range(-2, 2)
"""Places, from the token, at which a pair of neighbours begins."""


def sentence_features(keys: list[str]) -> list[list[str]]:
    """The features of each token by name, as training needs them; :func:`_scores` sums the same."""
    single = [token_features(key) for key in keys]
    double = [f"{left} {right}" for left, right in pairwise(map(kind, keys))]
    return [
        [f"{place}|{name}" for place in REACH if 0 <= at + place < len(keys) for name in single[at + place]]
        + [f"{place}&{double[at + place]}" for place in PAIRS if 0 <= at + place < len(double)]
        for at in range(len(keys))
    ]


def _chain(scores: _Floats, moves: _Floats) -> _Floats:
    """Chances by the forward-backward algorithm, in windows side by side that overlap by a margin.

    What stands more than a margin away moves no label, and windows make the loop as long as one window, whatever the
    text's length.
    """
    count, labels = scores.shape
    windows = max(1, -(-count // _WINDOW))
    weight = np.exp(scores - scores.max(axis=1, keepdims=True))
    # Beyond the text all is outside.
    padded = np.zeros((windows * _WINDOW + 2 * _MARGIN, labels), np.float32)
    padded[:, 0] = 1
    padded[_MARGIN : _MARGIN + count] = weight
    span = _WINDOW + 2 * _MARGIN
    rows = np.arange(windows)[:, None] * _WINDOW + np.arange(span)[None, :]
    wide = padded[rows.T]  # (span, windows, labels)
    step = np.exp(moves)
    forward = np.empty_like(wide)
    state = forward[0] = wide[0]
    for at in range(1, span):
        state = (state @ step) * wide[at]
        state /= state.sum(axis=1, keepdims=True)
        forward[at] = state
    behind = np.ones_like(wide[0])
    for at in range(span - 1, -1, -1):
        forward[at] *= behind
        behind = (behind * wide[at]) @ step.T
        behind /= behind.sum(axis=1, keepdims=True)
    inner = forward[_MARGIN : _MARGIN + _WINDOW].transpose(1, 0, 2).reshape(-1, labels)[:count]
    return inner / inner.sum(axis=1, keepdims=True)
