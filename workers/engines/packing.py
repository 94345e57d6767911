"""Texts that wait for their vectors: those of many callers share batches, urgent callers first, no caller for long."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]


class Call:
    """The inputs of one caller. Their vectors arrive batch by batch; ``done`` is set with the last one or an error.

    ``spans`` are the tokens of each input, first and end, that have a vector together; without them, all of an input.
    """

    def __init__(
        self,
        tokens: Sequence[list[int]],
        *,
        priority: int,
        dimensions: int,
        spans: Sequence[Sequence[Span]] | None = None,
    ) -> None:
        self.tokens = tokens
        self.spans = spans if spans is not None else [[(0, len(ids))] for ids in tokens]
        self.priority = priority
        self._firsts = np.cumsum([0, *(len(each) for each in self.spans)]).tolist()
        self.vectors = np.zeros((self._firsts[-1], dimensions), np.float32)
        self.error: Exception | None = None
        self.done = threading.Event()
        # What it has had, in tokens, counted from what those beside it had when it came.
        self.served = 0
        self._missing = len(tokens)
        self._left = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        self._lengths = [len(tokens[index]) for index in self._left]
        if not tokens:
            self.done.set()

    @property
    def waits(self) -> bool:
        """Whether a text is left that no batch has taken."""
        return bool(self._left)

    def take(self, room: int, most: int) -> list[int]:
        """Indices of texts that fit into ``room`` tokens, at most ``most`` of them; the longest that fits comes first.

        Batch after batch this is first fit by decreasing length.
        """
        taken: list[int] = []
        while len(taken) < most and (at := bisect_right(self._lengths, room)):
            length = self._lengths.pop(at - 1)
            taken.append(self._left.pop(at - 1))
            room -= length
            self.served += length
        return taken

    def deliver(self, indices: list[int], vectors: NDArray[np.float32]) -> None:
        """Take the vectors of these inputs, those of the first one first."""
        at = 0
        for index in indices:
            first, end = self._firsts[index : index + 2]
            self.vectors[first:end] = vectors[at : at + end - first]
            at += end - first
        self._missing -= len(indices)
        if self._missing == 0:
            self.done.set()

    def fail(self, error: Exception) -> None:
        """End with ``error``; texts that are left are not computed."""
        self.error = error
        self._left, self._lengths = [], []
        self.done.set()


Share = tuple[Call, list[int]]


def fill(calls: Sequence[Call], capacity: int, most: int) -> list[Share]:
    """One batch of at most ``capacity`` tokens and ``most`` texts; a smaller ``priority`` first, then who had less.

    What the first call leaves of the batch goes to the next.
    """
    shares: list[Share] = []
    for call in sorted(calls, key=lambda each: (each.priority, each.served)):
        taken = call.take(capacity, most)
        if taken:
            shares.append((call, taken))
            capacity -= sum(len(call.tokens[index]) for index in taken)
            most -= len(taken)
    return shares


class Waiting:
    """All calls that wait for an engine; safe from any thread."""

    def __init__(self, capacity: int, most: int) -> None:
        self._capacity = capacity
        self._most = most
        self._calls: list[Call] = []
        self._closed = False
        self._changed = threading.Condition()

    def add(self, call: Call) -> bool:
        """Let ``call`` wait; ``False`` where this is closed."""
        with self._changed:
            if self._closed:
                return False
            if call.waits:
                beside = [each.served for each in self._calls if each.priority == call.priority]
                call.served = min(beside, default=0)
                self._calls.append(call)
                self._changed.notify_all()
            return True

    def drop(self, call: Call) -> None:
        """Forget ``call``; one that is not here is fine."""
        with self._changed:
            if call in self._calls:
                self._calls.remove(call)

    def next_batch(self) -> list[Share]:
        """Wait for texts and take the next batch of them; an empty one says that this was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._closed)
            if self._closed:
                return []
            shares = fill(self._calls, self._capacity, self._most)
            self._calls = [call for call in self._calls if call.waits]
            return shares

    def close(self, error: Exception) -> None:
        """Take no more calls and end those that wait with ``error``."""
        with self._changed:
            self._closed = True
            calls, self._calls = self._calls, []
            self._changed.notify_all()
        for call in calls:
            call.fail(error)
