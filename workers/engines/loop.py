"""The engine thread: continuous batching of all running generations through one llama.cpp context.

Each step computes one token of every sequence that generates, then as much of the waiting prompts as fits. Sequences
come and go between steps. Each has its own part of the cache (split KV), so none can run out because of another.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from typing import Final

from services.errors import ModelError, Transient
from workers.engines.batch import Batch
from workers.engines.llama_api import LlamaContext, LlamaModel
from workers.engines.sampling import choose
from workers.engines.sequence import Request, RunningSequence

log = logging.getLogger("casemill.engine")

# While others generate, one step reads at most this much of the prompts, so that a long one does not stall them.
SHARED_PROMPT_TOKENS: Final = 256


def closed() -> Transient:
    """The error for work that met an engine that is shutting down or broken."""
    return Transient("The engine was closed or failed; the request can be tried again.", code="engine_closed")


class EngineLoop:
    """Owns ``context``; ``submit`` may be called from any thread. ``steps`` counts finished steps, failed ones too."""

    def __init__(self, model: LlamaModel, context: LlamaContext, *, sequences: int, batch_tokens: int) -> None:
        self.steps = 0
        self._moved_at = time.monotonic()
        self.broken = False
        self._model = model
        self._context = context
        self._batch = Batch(max(batch_tokens, sequences))
        self._free = list(range(sequences))
        self._running: list[RunningSequence] = []
        # After a failed step its sequences run one by one, so that only the culprit fails.
        self._suspects: list[RunningSequence] = []
        self._waiting: list[Request] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue ``request``; its events tell the rest. Raises ``Transient`` ``engine_closed``."""
        with self._changed:
            if self._closing or self.broken:
                raise closed()
            if not self._running and not self._waiting:
                self._moved_at = time.monotonic()
            heapq.heappush(self._waiting, request)
            self._changed.notify()

    def wake(self) -> None:
        """Look at the cancel flags now, even if nothing runs."""
        with self._changed:
            self._changed.notify()

    @property
    def stalled_seconds(self) -> float:
        """Seconds since the last step, or since there is work; 0.0 when idle. Never blocks."""
        # Without the lock: the engine thread may hang anywhere, and a value that is a step old does no harm.
        return time.monotonic() - self._moved_at if self._running or self._waiting else 0.0

    def close(self, seconds: float) -> bool:
        """Stop after the current step; what is unfinished fails with ``Transient``.

        Answers whether the thread ended within ``seconds``; otherwise it hangs, and what it uses must not be freed.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._admit():
                self._step()
                self.steps += 1
                self._moved_at = time.monotonic()
        except Exception:
            log.exception("the engine thread failed; its requests will be tried again")
        with self._changed:
            self.broken = True
            left = [*self._waiting, *(sequence.request for sequence in self._running)]
            self._waiting.clear()
            self._running.clear()
        for request in left:
            request.events.put(closed())

    def _admit(self) -> bool:
        """Drop what was cancelled and move waiting requests into free slots; ``False`` when closing."""
        while True:
            for sequence in [item for item in self._running if item.request.cancelled]:
                self._end(sequence, None)
            with self._changed:
                if self._closing:
                    return False
                dropped = [request for request in self._waiting if request.cancelled]
                if dropped:
                    self._waiting = [request for request in self._waiting if not request.cancelled]
                    heapq.heapify(self._waiting)
                while self._free and self._waiting:
                    self._running.append(RunningSequence(heapq.heappop(self._waiting), self._free.pop()))
                if not self._running and not dropped:
                    self._changed.wait()
            for request in dropped:
                RunningSequence(request, -1).finish("cancelled")
            if self._running:
                return True

    def _step(self) -> None:
        outputs = self._fill()
        code = self._context.decode(self._batch)
        if code != 0:
            self._isolate(code)
            return
        if outputs:
            self._sample(outputs)
        for sequence in [item for item in self._running if item.reason is not None]:
            self._end(sequence, None)
        self._suspects = [item for item in self._suspects if item not in outputs]

    def _fill(self) -> list[RunningSequence]:
        """Fill the batch; returns the sequences whose next token will come out of it, in the order of their logits."""
        self._batch.clear()
        outputs: list[RunningSequence] = []
        chosen = self._suspects[:1] or self._running
        generating = [sequence for sequence in chosen if sequence.waiting_tokens == 1]
        reading = sorted((item for item in chosen if item.waiting_tokens > 1), key=lambda item: item.request.rank)
        for sequence in generating:
            self._feed(sequence, 1, outputs)
        room = min(self._batch.room, SHARED_PROMPT_TOKENS) if generating else self._batch.room
        for sequence in reading:
            room -= self._feed(sequence, min(room, sequence.waiting_tokens), outputs)
        return outputs

    def _feed(self, sequence: RunningSequence, count: int, outputs: list[RunningSequence]) -> int:
        if count:
            complete = count == sequence.waiting_tokens
            tokens = sequence.tokens[sequence.fed : sequence.fed + count]
            self._batch.add(tokens, sequence.fed, sequence.slot, output=complete)
            sequence.fed += count
            if complete:
                outputs.append(sequence)
        return count

    def _sample(self, outputs: list[RunningSequence]) -> None:
        logits = self._context.logits(len(outputs))
        failed: set[int] = set()
        for row, sequence in enumerate(outputs):
            if sequence.request.matcher is not None:
                try:
                    sequence.request.matcher.exclude(logits[row])
                except Exception as error:
                    self._end(sequence, error)
                    failed.add(row)
        tokens = choose(logits, [sequence.request.chooser for sequence in outputs])
        for row, sequence in enumerate(outputs):
            token = int(tokens[row])
            if row in failed:
                continue
            try:
                if token < 0:
                    raise ModelError("The model computed no usable number for the next token.", code="model_unusable")
                sequence.accept(token, self._model.piece(token), ends=self._model.ends(token))
            except Exception as error:
                self._end(sequence, error)

    def _end(self, sequence: RunningSequence, error: Exception | None) -> None:
        """Free the slot and hand over the result or ``error``."""
        self._running.remove(sequence)
        if sequence in self._suspects:
            self._suspects.remove(sequence)
        self._context.forget(sequence.slot)
        self._free.append(sequence.slot)
        try:
            if error is not None:
                raise error
            sequence.finish("cancelled" if sequence.request.cancelled else sequence.reason or "stop")
        except Exception as problem:
            sequence.request.events.put(problem)

    def _isolate(self, code: int) -> None:
        """After a failed step: fail the sequence that ran alone, or compute all again one by one to find it."""
        log.warning("llama.cpp failed a step with code %d", code)
        if len(self._running) == 1 or self._suspects:
            culprit = self._suspects[0] if self._suspects else self._running[0]
            self._end(culprit, Transient(f"llama.cpp failed on this text (code {code}).", code="engine_failed"))
            return
        for sequence in self._running:
            self._context.forget(sequence.slot)
            sequence.fed = 0
        self._suspects = list(self._running)
