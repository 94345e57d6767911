"""What a request changes in the logits before anything is drawn: penalties for repeating, and biases of its own.

Only the few tokens concerned are touched, never the whole vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.engines.base import Sampling

# As in llama.cpp: over all of a long prompt, the penalty would fall on the very words that an answer has to quote.
REPETITION_WINDOW: Final = 64

# The tokens that were touched, and the logits that they had.
Before = tuple[NDArray[np.int64], NDArray[np.float32]]


class Adjustments:
    """The penalties and biases of one sequence, with the counts they need; see :class:`Sampling` for their meaning."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._repetition = np.float32(sampling.repetition_penalty)
        self._frequency = np.float32(sampling.frequency_penalty)
        self._presence = np.float32(sampling.presence_penalty)
        self._counts = self._frequency != 0 or self._presence != 0
        self._recent = deque(prompt[-REPETITION_WINDOW:], maxlen=REPETITION_WINDOW)
        # Written tokens in the order of their first use; what lies beyond is room for more.
        self._places: dict[int, int] = {}
        self._written = np.zeros(64, np.int64)
        self._times = np.zeros(64, np.float32)
        self._biased = np.array(list(sampling.logit_bias), np.int64)
        self._biases = np.array(list(sampling.logit_bias.values()), np.float32)

    @property
    def any(self) -> bool:
        """Whether any logit may ever be changed."""
        return self._counts or self._repetition != 1 or len(self._biased) > 0

    def observe(self, token: int) -> None:
        """Count ``token`` as written."""
        self._recent.append(token)
        if not self._counts:
            return
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._written):
            self._written = np.concatenate([self._written, np.zeros_like(self._written)])
            self._times = np.concatenate([self._times, np.zeros_like(self._times)])
        self._written[place] = token
        self._times[place] += 1

    def apply(self, row: NDArray[np.float32]) -> Before | None:
        """Change the logits (vocabulary,); returns what :func:`restore` needs. Excluded tokens stay −inf."""
        recent = np.array(sorted(set(self._recent)), np.int64) if self._repetition != 1 else self._biased[:0]
        written = self._written[: len(self._places)]
        touched = np.concatenate([recent, written, self._biased])
        if not len(touched):
            return None
        before = row[touched]
        if len(recent):
            values = row[recent]
            row[recent] = np.where(values > 0, values / self._repetition, values * self._repetition)
        if len(written):
            row[written] -= self._times[: len(written)] * self._frequency + self._presence
        if len(self._biased):
            row[self._biased] += self._biases
        return touched, before


def restore(row: NDArray[np.float32], before: Before | None) -> None:
    """Undo what ``apply`` did to ``row``."""
    if before is not None:
        touched, values = before
        row[touched] = values
