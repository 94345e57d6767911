"""Embeddings on a GGUF encoder: one thread packs the texts of all callers into batches of a context of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidRequest, ModelError, Transient
from services.models import Model
from workers.engines.base import (
    Cancelled,
    Embeddings,
    TextOrTokens,
    Tick,
    WorkCancelled,
    check_tokens,
    context_exceeded,
    never,
    no_tick,
)
from workers.engines.batch import Batch
from workers.engines.llama_api import POOL_MEAN, POOL_NONE, LlamaModel
from workers.engines.llama_context import LlamaContext
from workers.engines.loading import CLOSE_SECONDS, WAIT_SECONDS
from workers.engines.meter import Meter
from workers.engines.packing import Call, Share, Span, Waiting
from workers.engines.plan import MAX_EMBEDDING_TOKENS, PACKED_TEXTS, embedding_batch
from workers.engines.windows import windows_of

log = logging.getLogger("casemill.engine")


class LlamaEmbeddings:
    """A :class:`~workers.engines.base.EmbeddingEngine` on llama.cpp; its thread computes one batch at a time."""

    def __init__(
        self, model: Model, *, gpu_layers: int, threads: int, gpu: bool = False, extra_buffers: bool = False
    ) -> None:
        """Load the weights; ``extra_buffers`` as the probe found.

        Raises ``ModelError`` (``model_damaged``, ``model_unusable``, ``memory_exceeded``).
        """
        self._model = model
        self.meter = Meter()
        self._steps = 0
        self._computing_since: float | None = None
        self._context: LlamaContext | None = None
        self._llama = LlamaModel(model.path, gpu_layers=gpu_layers, extra_buffers=extra_buffers)
        self.limit = min(self._llama.context_tokens, MAX_EMBEDDING_TOKENS)
        capacity = embedding_batch(self._llama.context_tokens, gpu=gpu)
        self._waiting = Waiting(capacity, PACKED_TEXTS)
        self._thread = threading.Thread(target=self._run, name=f"embed {model.name}", daemon=True)
        try:
            pooling = self._llama.pooling
            if pooling == POOL_NONE:
                raise ModelError(
                    f"{model.name} says nothing about pooling: it is no embedding model.", code="model_unusable"
                )
            # Means are taken here, of a text as of its parts.
            self._means = pooling == POOL_MEAN
            # An encoder computes a batch in one go and kills the process where it exceeds n_ubatch.
            self._context = LlamaContext(
                self._llama, tokens=capacity, batch=capacity, micro_batch=capacity, sequences=PACKED_TEXTS,
                threads=threads, embeddings=True, pooled=not self._means,
            )  # fmt: skip
        except BaseException:
            self.close()
            raise
        self._batch = Batch(capacity)
        self._thread.start()

    @property
    def model(self) -> Model:
        """The model behind this engine."""
        return self._model

    def embed(
        self, texts: Sequence[TextOrTokens], *, priority: int = 2, cancelled: Cancelled = never, tick: Tick = no_tick
    ) -> Embeddings:
        """See :meth:`workers.engines.base.EmbeddingEngine.embed`. The vectors do not depend on how texts are packed."""
        tokens: list[list[int]] = []
        for index, text in enumerate(texts):
            _go_on(cancelled, tick)
            ids = self._ids(index, text)
            if len(ids) > self.limit:
                raise context_exceeded(f"Input {index}", len(ids), self.limit)
            if not ids:
                raise InvalidRequest(f"Input {index} is empty.", code="input_empty")
            tokens.append(ids)
        vectors = self._vectors(Call(tokens, priority=priority, dimensions=self._model.dimensions), cancelled, tick)
        return Embeddings(vectors=vectors, tokens=[len(ids) for ids in tokens])

    def embed_in_context(
        self, texts: Sequence[str], *, priority: int = 2, cancelled: Cancelled = never, tick: Tick = no_tick
    ) -> Embeddings:
        """See :meth:`workers.engines.base.EmbeddingEngine.embed_in_context`."""
        if not self._means:
            raise ModelError(f"{self._model.name} gives no mean of tokens.", code="model_unusable")
        begin, end = self._frame()
        room = self.limit - len(begin) - len(end)
        pieces: list[list[int]] = []
        for index, text in enumerate(texts):
            _go_on(cancelled, tick)
            pieces.append(self._llama.tokenize(text, special=False, start=False))
            if len(pieces[-1]) > room:
                raise context_exceeded(f"Input {index}", len(pieces[-1]), room)
        tokens: list[list[int]] = []
        spans: list[list[Span]] = []
        for window in windows_of([len(ids) for ids in pieces], room):
            ids = list(begin)
            inside: list[Span] = []
            for place in range(window.first, window.end):
                # A text without a token, of control characters for instance, has the vector of the window's beginning.
                span = (len(ids), len(ids) + len(pieces[place])) if pieces[place] else (0, 1)
                if window.start <= place < window.stop:
                    inside.append(span)
                ids += pieces[place]
            tokens.append(ids + end)
            spans.append(inside)
        call = Call(tokens, priority=priority, dimensions=self._model.dimensions, spans=spans)
        return Embeddings(vectors=self._vectors(call, cancelled, tick), tokens=[len(ids) for ids in pieces])

    def _ids(self, index: int, text: TextOrTokens) -> list[int]:
        if isinstance(text, str):
            return self._llama.tokenize(text, special=False, start=True)
        check_tokens(f"Input {index}", text, self._llama.vocab_size)
        begin, end = self._frame()
        framed = text[: len(begin)] == begin and text[len(text) - len(end) :] == end
        return text if framed else [*begin, *text, *end]

    def _frame(self) -> tuple[list[int], list[int]]:
        """The tokens that stand before and after every text."""
        frame = self._llama.tokenize("", special=False, start=True)
        begin = frame[:1] if frame[:1] == [self._llama.bos] else []
        return begin, frame[len(begin) :]

    def _vectors(self, call: Call, cancelled: Cancelled, tick: Tick) -> NDArray[np.float32]:
        if not self._waiting.add(call):
            raise _closed()
        try:
            self._wait(call, cancelled, tick)
        finally:
            self._waiting.drop(call)
        if call.error is not None:
            raise call.error
        return call.vectors

    def _wait(self, call: Call, cancelled: Cancelled, tick: Tick) -> None:
        """Until ``call`` is done; whoever waits ticks as long as batches are computed, its own or those of others."""
        seen = self._steps
        _go_on(cancelled, tick)
        while not call.done.wait(WAIT_SECONDS):
            if self._steps != seen:
                seen = self._steps
                tick()
            if cancelled():
                raise WorkCancelled("The embedding was cancelled.")
        tick()

    @property
    def stalled_seconds(self) -> float:
        """See :attr:`workers.engines.base.EmbeddingEngine.stalled_seconds`."""
        since = self._computing_since
        return 0.0 if since is None else time.monotonic() - since

    def count_tokens(self, text: str) -> int:
        """See :meth:`workers.engines.base.EmbeddingEngine.count_tokens`."""
        return len(self._llama.tokenize(text, special=False, start=True))

    def _run(self) -> None:
        while batch := self._waiting.next_batch():
            self._computing_since = time.monotonic()
            try:
                self._serve(batch)
            finally:
                self._computing_since = None

    def _serve(self, batch: list[Share]) -> None:
        """Give each call the vectors of its share; where that fails, each share alone, so that one hurts no other."""
        try:
            vectors = self._compute(
                [call.tokens[index] for call, members in batch for index in members],
                [call.spans[index] for call, members in batch for index in members],
            )
        except Exception as error:
            if len(batch) == 1:
                self._waiting.drop(batch[0][0])
                batch[0][0].fail(error)
                return
            for share in batch:
                self._serve([share])
            return
        finally:
            self._steps += 1
        at = 0
        for call, members in batch:
            count = sum(len(call.spans[index]) for index in members)
            call.deliver(members, vectors[at : at + count])
            at += count

    def _compute(self, texts: list[list[int]], spans: list[Sequence[Span]]) -> NDArray[np.float32]:
        if self._context is None:
            raise _closed()
        self._batch.clear()
        for sequence, ids in enumerate(texts):
            self._batch.add(ids, 0, sequence, output=True, output_all=True)
        self._context.clear()
        code = self._context.decode(self._batch)
        if code != 0:
            raise Transient(f"llama.cpp failed on these texts (code {code}).", code="engine_failed")
        if self._means:
            computed = self._context.token_vectors(self._batch.size)
            starts = np.cumsum([0, *(len(ids) for ids in texts)]).tolist()
            vectors = np.stack(
                [
                    computed[start + first : start + end].mean(axis=0)
                    for start, each in zip(starts, spans, strict=False)
                    for first, end in each
                ]
            )
        else:
            vectors = np.stack([self._context.pooled(sequence) for sequence in range(len(texts))])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise ModelError(f"{self._model.name} computed no usable vector.", code="model_unusable")
        self.meter.embedded(len(texts), self._batch.size)
        return vectors / lengths

    def close(self) -> None:
        """Free everything, unless a batch hangs; calls that wait end with ``Transient``."""
        self._waiting.close(_closed())
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                log.error("the engine of %s hangs; its memory is freed when the process ends", self._model.name)
                return
        context, self._context = self._context, None
        if context is not None:
            context.close()
        self._llama.close()


def _closed() -> Transient:
    return Transient("The embedding engine was closed; try again.", code="engine_closed")


def _go_on(cancelled: Cancelled, tick: Tick) -> None:
    tick()
    if cancelled():
        raise WorkCancelled("The embedding was cancelled.")
