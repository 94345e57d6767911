"""Chooses the next token of every sequence in a batch from the logits, on the host, the rows spread over threads.

The result for a sequence depends on its own logits, parameters, text and seed alone, never on who else is in the batch
or on the number of threads.
"""

from __future__ import annotations

import math
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import neg
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.engines.adjustments import Adjustments, restore
from workers.engines.base import Sampling, TokenLogprob
from workers.engines.rows import each_row
from workers.engines.weights import Row, Weights, likeliest, peaks

GREEDY_BELOW: Final = 1e-5


class Chooser:
    """What one sequence chooses by: its parameters, the tokens written so far and a stream of random numbers.

    The random numbers are Philox's, keyed by the seed. ``logprobs`` has an entry for each token observed, where they
    were asked for. One that is ``plain`` takes the likeliest token as the model gives it; one that is ``few`` draws
    among some of the likeliest. ``nearest`` is how many of the likeliest tokens are enough to choose by, 0 if all are
    needed.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int] = ()) -> None:
        self.greedy = sampling.temperature < GREEDY_BELOW or sampling.top_k == 1
        self.temperature = max(sampling.temperature, GREEDY_BELOW)
        self.top_p = sampling.top_p
        self.top_k = sampling.top_k
        self.min_p = sampling.min_p
        self.top_logprobs = sampling.logprobs
        self.adjustments = Adjustments(sampling, prompt)
        untouched = self.top_logprobs is None and not self.adjustments.any
        self.plain = self.greedy and untouched
        self.few = not self.greedy and self.top_k > 0 and untouched
        self.nearest = 1 if self.plain else self.top_k if self.few else 0
        self.logprobs: list[TokenLogprob] = []
        self._noted: TokenLogprob | None = None
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed % 2**64
        self._random = np.random.Generator(np.random.Philox(key=seed))

    def draw(self) -> float:
        """The next random number in [0, 1)."""
        return float(self._random.random())

    def note(self, logprob: TokenLogprob) -> None:
        """Keep the probability of the token that was chosen until it is observed."""
        self._noted = logprob

    def observe(self, token: int) -> None:
        """Count ``token`` as written; to be called once for every token that a sequence accepts."""
        self.adjustments.observe(token)
        if self._noted is not None:
            self.logprobs.append(self._noted)
            self._noted = None


def choose(logits: NDArray[np.float32], choosers: Sequence[Chooser]) -> list[int]:
    """One token a row of ``logits`` (rows, vocabulary), by the chooser of the same index; −1 where a row is unusable.

    Excluded tokens are −inf. A row is unusable where its greatest value is NaN or infinite. The logits must be
    writable; afterwards they are as before.
    """
    tokens = [-1] * len(choosers)
    greatest: dict[int, Row] = {}

    def work(row: int) -> None:
        if choosers[row].few:
            greatest[row] = peaks(logits[row])
        else:
            tokens[row] = _choose(logits[row], choosers[row])

    each_row(work, range(len(choosers)), logits.shape[1])
    # What is left of these rows is too little for several threads: they would wait for the interpreter's lock.
    for row, found in greatest.items():
        tokens[row] = _draw_first(logits[row], choosers[row], found)
    return tokens


def choose_among(logits: NDArray[np.float32], candidates: NDArray[np.int32], choosers: Sequence[Chooser]) -> list[int]:
    """As :func:`choose` by the same logits, of which only the greatest are known: those of the ``candidates``.

    Both are (rows, at least two and ``nearest`` of each chooser), the greatest first; equal ones in any order.
    """
    # The device waits for this: what numpy adds to a call is much where few rows are, so it is asked for little.
    tokens: list[int] = candidates[:, 0].tolist()
    drawing: list[int] = []
    for row, (first, second) in enumerate(logits[:, :2].tolist()):
        if not math.isfinite(first):
            tokens[row] = -1
        elif choosers[row].few:
            drawing.append(row)
        elif first == second:
            tokens[row] = int(candidates[row, logits[row] == first].min())
    if drawing:
        some, of_some = logits[drawing], candidates[drawing]
        equal = some[:, 1:] == some[:, :-1]
        if equal.any():
            order = np.lexsort((of_some, -some))
            some, of_some = np.take_along_axis(some, order, 1), np.take_along_axis(of_some, order, 1)
        places = _draw_places(some, [choosers[row] for row in drawing])
        for row, token in zip(drawing, of_some[range(len(drawing)), places].tolist(), strict=True):
            tokens[row] = token
    return tokens


def _choose(row: Row, chooser: Chooser) -> int:
    if chooser.plain:  # most of a large batch: what Python adds to each row is added to the step
        likely = int(row.argmax())
        return likely if math.isfinite(row[likely]) else -1
    # What overflows here is a token that is too unlikely to be drawn.
    with np.errstate(over="ignore"):
        before = chooser.adjustments.apply(row)
        first = int(row.argmax())
        if not math.isfinite(row[first]):
            token = -1
        elif chooser.greedy:
            token = first
        elif chooser.top_k > 0:
            token = _draw_first(row, chooser, peaks(row))
        else:
            token = _draw(row, float(row[first]), chooser)
        restore(row, before)
        if chooser.top_logprobs is not None and token >= 0:
            chooser.note(_logprob(row, token, chooser.top_logprobs))
    return token


def _draw(row: Row, peak: float, chooser: Chooser) -> int:
    """Draw among the tokens that top-p and min-p leave: from all, and again where the token is not one of them."""
    weights = Weights(row, peak, chooser.temperature)
    # The smallest set whose mass reaches this much.
    needed = chooser.top_p * weights.total
    while True:
        token = weights.draw(chooser.draw())
        likely = weights.of(token) >= chooser.min_p
        if likely and (chooser.top_p == 1.0 or weights.ahead(token) < needed):
            return token
        weights.keep_ahead(token)


def _draw_first(row: Row, chooser: Chooser, greatest: Row) -> int:
    """Draw among the ``top_k`` likeliest, as top-p, a share of their mass, and min-p leave them; −1 as above."""
    if not math.isfinite(greatest.max()):
        return -1
    tokens = likeliest(row, chooser.top_k, greatest)
    return int(tokens[_draw_places(row[tokens][None], [chooser])[0]])


def _draw_places(logits: NDArray[np.float32], choosers: Sequence[Chooser]) -> list[int]:
    """Where each row's draw falls among its logits, the greatest first and finite."""
    heat = np.array([[chooser.temperature] for chooser in choosers])
    weights = np.exp((logits.astype(np.float64) - logits[:, :1]) / heat)
    # Running sums are the same for a row whatever stands beside it, which numpy's other sums are not.
    mass = weights.cumsum(axis=1)
    return [_draw_place(*row) for row in zip(weights, mass, choosers, strict=True)]


def _draw_place(weights: NDArray[np.float64], mass: NDArray[np.float64], chooser: Chooser) -> int:
    """Where one row's draw falls, by its weights, of which the first is 1, and their running sums."""
    count = min(chooser.top_k, len(mass))
    # The first is always kept, each other one where those ahead of it have not reached the share.
    kept = min(bisect_left(mass, chooser.top_p * mass[count - 1], 0, count) + 1, count)
    kept = max(1, bisect_right(weights, -chooser.min_p, 0, kept, key=neg))
    # Rounding may push past all that is left.
    return min(bisect_right(mass, chooser.draw() * mass[kept - 1], 0, kept), kept - 1)


def _logprob(row: Row, token: int, count: int) -> TokenLogprob:
    """The token's probability by the model itself, with the ``count`` likeliest at its place."""
    top = likeliest(row, max(count, 1))
    peak = float(row[top[0]])
    total = peak + math.log(Weights(row, peak, 1.0).total)
    first = tuple(TokenLogprob(int(other), float(row[other]) - total) for other in top[:count])
    return TokenLogprob(token, float(row[token]) - total, first)
