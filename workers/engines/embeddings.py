"""Embeddings on a GGUF encoder: packs many texts into each batch of a context of its own, pooled and of length 1."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left, insort
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidRequest, ModelError, Transient
from services.models import Model
from workers.engines.base import Cancelled, Embeddings, Tick, WorkCancelled, context_exceeded, never, no_tick
from workers.engines.batch import Batch
from workers.engines.llama_api import POOL_NONE, LlamaContext, LlamaModel
from workers.engines.loading import CLOSE_SECONDS, WAIT_SECONDS
from workers.engines.plan import MAX_EMBEDDING_TOKENS, PACKED_TEXTS, embedding_batch

log = logging.getLogger("casemill.engine")


class LlamaEmbeddings:
    """A :class:`~workers.engines.base.EmbeddingEngine` on llama.cpp; one batch computes at a time."""

    def __init__(
        self, model: Model, *, gpu_layers: int, threads: int, gpu: bool = False, extra_buffers: bool = False
    ) -> None:
        """Load the weights; ``extra_buffers`` as the probe found.

        Raises ``ModelError`` (``model_damaged``, ``model_unusable``, ``memory_exceeded``).
        """
        self._model = model
        self._lock = threading.Lock()
        self._steps = 0
        self._computing_since: float | None = None
        self._llama = LlamaModel(model.path, gpu_layers=gpu_layers, extra_buffers=extra_buffers)
        self.limit = min(self._llama.context_tokens, MAX_EMBEDDING_TOKENS)
        capacity = embedding_batch(self._llama.context_tokens, gpu=gpu)
        try:
            # An encoder computes a batch in one go and kills the process where it exceeds n_ubatch.
            self._context: LlamaContext | None = LlamaContext(
                self._llama, tokens=capacity, batch=capacity, micro_batch=capacity, sequences=PACKED_TEXTS,
                threads=threads, embeddings=True,
            )  # fmt: skip
            if self._context.pooling == POOL_NONE:
                raise ModelError(
                    f"{model.name} says nothing about pooling: it is no embedding model.", code="model_unusable"
                )
        except BaseException:
            self.close()
            raise
        self._batch = Batch(capacity)

    @property
    def model(self) -> Model:
        """The model behind this engine."""
        return self._model

    def embed(self, texts: Sequence[str], *, cancelled: Cancelled = never, tick: Tick = no_tick) -> Embeddings:
        """See :meth:`workers.engines.base.EmbeddingEngine.embed`. The vectors do not depend on how texts are packed."""
        tokens: list[list[int]] = []
        for index, text in enumerate(texts):
            _go_on(cancelled, tick)
            ids = self._llama.tokenize(text, special=False, start=True)
            if len(ids) > self.limit:
                raise context_exceeded(f"Input {index}", len(ids), self.limit)
            if not ids:
                raise InvalidRequest(f"Input {index} is empty.", code="input_empty")
            tokens.append(ids)
        vectors = np.zeros((len(texts), self._model.dimensions), np.float32)
        for members in pack([len(ids) for ids in tokens], self._batch.capacity, PACKED_TEXTS):
            _go_on(cancelled, tick)
            with self._turn(cancelled, tick):
                vectors[members] = self._compute([tokens[index] for index in members])
        tick()
        return Embeddings(vectors=vectors, tokens=[len(ids) for ids in tokens])

    @contextmanager
    def _turn(self, cancelled: Cancelled, tick: Tick) -> Generator[None]:
        """Have the context for one batch; whoever waits for it ticks as long as others compute theirs."""
        seen = self._steps
        while not self._lock.acquire(timeout=WAIT_SECONDS):
            if self._steps != seen:
                seen = self._steps
                tick()
            if cancelled():
                raise WorkCancelled("The embedding was cancelled.")
        try:
            self._computing_since = time.monotonic()
            yield
        finally:
            self._computing_since = None
            self._steps += 1
            self._lock.release()

    @property
    def stalled_seconds(self) -> float:
        """See :attr:`workers.engines.base.EmbeddingEngine.stalled_seconds`."""
        since = self._computing_since
        return 0.0 if since is None else time.monotonic() - since

    def count_tokens(self, text: str) -> int:
        """See :meth:`workers.engines.base.EmbeddingEngine.count_tokens`."""
        return len(self._llama.tokenize(text, special=False, start=True))

    def _compute(self, texts: list[list[int]]) -> NDArray[np.float32]:
        if self._context is None:
            raise Transient("The embedding engine was closed; try again.", code="engine_closed")
        self._batch.clear()
        for sequence, ids in enumerate(texts):
            self._batch.add(ids, 0, sequence, output=True, output_all=True)
        self._context.clear()
        code = self._context.decode(self._batch)
        if code != 0:
            raise Transient(f"llama.cpp failed on these texts (code {code}).", code="engine_failed")
        vectors = np.stack([self._context.pooled(sequence) for sequence in range(len(texts))])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise ModelError(f"{self._model.name} computed no usable vector.", code="model_unusable")
        return vectors / lengths

    def close(self) -> None:
        """Free everything, unless a batch hangs."""
        if not self._lock.acquire(timeout=CLOSE_SECONDS):
            log.error("the engine of %s hangs; its memory is freed when the process ends", self._model.name)
            return
        try:
            context, self._context = getattr(self, "_context", None), None
            if context is not None:
                context.close()
            self._llama.close()
        finally:
            self._lock.release()


def _go_on(cancelled: Cancelled, tick: Tick) -> None:
    tick()
    if cancelled():
        raise WorkCancelled("The embedding was cancelled.")


def pack(lengths: Sequence[int], capacity: int, most: int) -> list[list[int]]:
    """Indices of texts by batch: each holds at most ``capacity`` tokens and ``most`` texts, longest texts first.

    Best fit by decreasing length: a text goes where it leaves the least room. Batches are kept by their room, of which
    there are at most ``capacity`` different values, so the time grows with the number of texts × its logarithm.
    """
    batches: list[list[int]] = []
    by_room: list[list[list[int]]] = [[] for _ in range(capacity + 1)]
    rooms: list[int] = []  # those of which there is a batch, ascending
    for index in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        length = lengths[index]
        at = bisect_left(rooms, length)
        if at < len(rooms):
            room = rooms[at]
            batch = by_room[room].pop()
            if not by_room[room]:
                del rooms[at]
        else:
            room, batch = capacity, list[int]()
            batches.append(batch)
        batch.append(index)
        room -= length
        if len(batch) < most:
            if not by_room[room]:
                insort(rooms, room)
            by_room[room].append(batch)
    return batches
