"""Embeddings by a GGUF encoder: its threads pack the texts of all callers into batches and compute them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidRequest, ModelError, Transient
from services.gguf_header import GgufHeader, read_header
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
from workers.engines.llama_api import POOL_NONE, LlamaModel
from workers.engines.llama_encoder import LlamaEncoder
from workers.engines.loading import CLOSE_SECONDS, WAIT_SECONDS
from workers.engines.meter import Meter
from workers.engines.onnx_encoder import OnnxEncoder
from workers.engines.packing import Call, Share, Span, Waiting
from workers.engines.plan import MAX_EMBEDDING_TOKENS, PACKED_TEXTS, Budget, ContextPlan, Wish, plan_embedding
from workers.engines.windows import windows_of

log = logging.getLogger("casemill.engine")


class Encoder(Protocol):
    """What computes a batch. ``means``: it gives a vector a token, which the engine averages; else one a text."""

    means: bool

    def compute(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Vectors of the tokens of all texts in a row, (tokens, dimensions), or of the texts, (texts, dimensions).

        They need not have length one. Raises ``Transient``.
        """
        ...

    def close(self) -> None:
        """Free what it holds; nothing is computed any more."""
        ...


class GgufEmbeddings:
    """A :class:`~workers.engines.base.EmbeddingEngine`; each of its threads computes one batch at a time."""

    def __init__(
        self, model: Model, header: GgufHeader, plan: ContextPlan, *, threads: int, extra_buffers: bool = False
    ) -> None:
        """Load the weights as ``plan`` says; ``extra_buffers`` as the probe found.

        Raises ``ModelError`` (``model_damaged``, ``model_unusable``, ``memory_exceeded``).
        """
        self._model = model
        self.meter = Meter()
        # Of what the threads count together, also the vectors that a call still waits for.
        self._counting = threading.Lock()
        self._steps = 0
        self._computing: dict[int, float] = {}  # by thread, since when
        self._encoder: Encoder | None = None
        by_onnx = plan.library == "onnxruntime"
        # llama.cpp makes the tokens of either.
        self._llama = LlamaModel(
            model.path, gpu_layers=plan.gpu_layers, extra_buffers=extra_buffers, weightless=by_onnx
        )
        self.limit = min(self._llama.context_tokens, MAX_EMBEDDING_TOKENS)
        self._waiting = Waiting(plan.batch, PACKED_TEXTS)
        # onnxruntime computes a batch on one core, llama.cpp on all.
        self._threads = [
            threading.Thread(target=self._run, name=f"embed {model.name} {number}", daemon=True)
            for number in range(threads if by_onnx else 1)
        ]
        try:
            if header.dimensions != model.dimensions:
                raise ModelError(
                    f"{model.path} is not the file that was installed: install it again.", code="model_damaged"
                )
            if self._llama.pooling == POOL_NONE:
                raise ModelError(
                    f"{model.name} says nothing about pooling: it is no embedding model.", code="model_unusable"
                )
            if by_onnx:
                self._encoder = OnnxEncoder(model.path, header)
            else:
                self._encoder = LlamaEncoder(self._llama, capacity=plan.batch, threads=threads)
            self._means = self._encoder.means
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.close()
            raise

    @classmethod
    def on_cpu(cls, model: Model, *, threads: int) -> GgufEmbeddings:
        """The engine of a program that is no worker: without a GPU, in as much memory as it takes."""
        header = read_header(model.path)
        wish = Wish(tokens=0, sequences=0, gpu_layers=0, cores=threads)
        return cls(model, header, plan_embedding(header, wish, Budget()), threads=threads)

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
        since = min(self._computing.copy().values(), default=None)
        return 0.0 if since is None else time.monotonic() - since

    def count_tokens(self, text: str) -> int:
        """See :meth:`workers.engines.base.EmbeddingEngine.count_tokens`."""
        return len(self._llama.tokenize(text, special=False, start=True))

    def _run(self) -> None:
        own = threading.get_ident()
        while batch := self._waiting.next_batch():
            self._computing[own] = time.monotonic()
            try:
                self._serve(batch)
            except Exception as error:  # nobody may wait for ever
                log.exception("the engine of %s failed outside of a batch", self._model.name)
                for call, _ in batch:
                    self._waiting.drop(call)
                    call.fail(error)
            finally:
                del self._computing[own]

    def _serve(self, batch: list[Share]) -> None:
        """Give each call the vectors of its share; where that fails, each share alone, so that one hurts no other."""
        texts = [call.tokens[index] for call, members in batch for index in members]
        try:
            vectors = self._compute(texts, [call.spans[index] for call, members in batch for index in members])
        except Exception as error:
            with self._counting:
                self._steps += 1
            if len(batch) == 1:
                self._waiting.drop(batch[0][0])
                batch[0][0].fail(error)
                return
            for share in batch:
                self._serve([share])
            return
        with self._counting:
            self._steps += 1
            self.meter.embedded(len(texts), sum(map(len, texts)))
            at = 0
            for call, members in batch:
                count = sum(len(call.spans[index]) for index in members)
                call.deliver(members, vectors[at : at + count])
                at += count

    def _compute(self, texts: list[list[int]], spans: list[Sequence[Span]]) -> NDArray[np.float32]:
        if self._encoder is None:
            raise _closed()
        vectors = self._encoder.compute(texts)
        if self._means:
            starts = np.cumsum([0, *(len(ids) for ids in texts)]).tolist()
            vectors = np.stack(
                [
                    vectors[start + first : start + end].mean(axis=0)
                    for start, each in zip(starts, spans, strict=False)
                    for first, end in each
                ]
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise ModelError(f"{self._model.name} computed no usable vector.", code="model_unusable")
        return vectors / lengths

    def close(self) -> None:
        """Free everything, unless a batch hangs; calls that wait end with ``Transient``."""
        self._waiting.close(_closed())
        until = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            log.error("the engine of %s hangs; its memory is freed when the process ends", self._model.name)
            return
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.close()
        self._llama.close()


def _closed() -> Transient:
    return Transient("The embedding engine was closed; try again.", code="engine_closed")


def _go_on(cancelled: Cancelled, tick: Tick) -> None:
    tick()
    if cancelled():
        raise WorkCancelled("The embedding was cancelled.")
