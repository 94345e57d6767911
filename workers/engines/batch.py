"""The tokens of one engine step as llama.cpp reads them, filled through numpy (350 times faster than by ctypes)."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Batch:
    """A ``llama_batch`` of at most ``capacity`` tokens, each in one sequence, over memory that numpy owns."""

    def __init__(self, capacity: int) -> None:
        library: Any = importlib.import_module("llama_cpp.llama_cpp")
        self.capacity = capacity
        self.size = 0
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._sequence_counts = np.ones(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        # seq_id is an array of pointers, here into consecutive elements of one array.
        step = self._sequences.itemsize
        self._pointers = self._sequences.ctypes.data + step * np.arange(capacity, dtype=np.uintp)
        self.native: Any = library.llama_batch()
        for name, kind, array in (
            ("token", ctypes.c_int32, self._tokens),
            ("pos", ctypes.c_int32, self._positions),
            ("n_seq_id", ctypes.c_int32, self._sequence_counts),
            ("seq_id", ctypes.POINTER(ctypes.c_int32), self._pointers),
            ("logits", ctypes.c_int8, self._outputs),
        ):
            setattr(self.native, name, ctypes.cast(ctypes.c_void_p(array.ctypes.data), ctypes.POINTER(kind)))

    @property
    def room(self) -> int:
        """How many more tokens fit."""
        return self.capacity - self.size

    def clear(self) -> None:
        """Start an empty batch."""
        self.size = 0
        self.native.n_tokens = 0

    def add(
        self,
        tokens: Sequence[int] | NDArray[np.int32],
        start: int,
        sequence: int,
        *,
        output: bool,
        output_all: bool = False,
    ) -> None:
        """Append ``tokens`` from position ``start`` of ``sequence``; ``output`` asks for logits after the last."""
        first, last = self.size, self.size + len(tokens)
        if last > self.capacity:
            raise ValueError(f"{last} tokens do not fit into a batch of {self.capacity}")
        self._tokens[first:last] = tokens
        self._positions[first:last] = np.arange(start, start + last - first, dtype=np.int32)
        self._sequences[first:last] = sequence
        self._outputs[first:last] = output_all
        if output:
            self._outputs[last - 1] = 1
        self.size = last
        self.native.n_tokens = last

    def add_each(self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int]) -> None:
        """Append one token of each sequence at its position and ask for logits after it: many at the cost of one."""
        first, last = self.size, self.size + len(tokens)
        if last > self.capacity:
            raise ValueError(f"{last} tokens do not fit into a batch of {self.capacity}")
        self._tokens[first:last] = tokens
        self._positions[first:last] = positions
        self._sequences[first:last] = sequences
        self._outputs[first:last] = 1
        self.size = last
        self.native.n_tokens = last

    def advance(self, tokens: Sequence[int]) -> None:
        """Replace what :meth:`add_each` added by the next token of each sequence, in the same order."""
        self._tokens[: self.size] = tokens
        self._positions[: self.size] += 1
