"""The engine thread: continuous batching of all running generations through one llama.cpp context.

A step either computes one token of every sequence that generates, or reads prompts; both in one batch would fall apart
into small ones, since llama.cpp computes equally many tokens of each sequence at a time. Between steps sequences come
and go, and the most urgent take the place of others. Where none has come or gone, a step is begun at once from the
tokens of the last one; on a GPU, what else there is to do is done while it computes.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from services.errors import ModelError, Transient
from services.jobs import Priority
from workers.engines.batch import Batch
from workers.engines.llama_api import LlamaModel
from workers.engines.llama_context import LlamaContext
from workers.engines.meter import Meter
from workers.engines.sampling import choose, choose_among
from workers.engines.seats import Seats
from workers.engines.sequence import Request, Sequence
from workers.engines.structured import exclude

log = logging.getLogger("casemill.engine")

# While a critical or high sequence generates, one step reads at most this much of what is not more urgent.
PROMPT_TOKENS: Final = {0: 128, 1: 256}
# How long prompts are read, step after step, before a sequence of this priority gets its next token. The more sequences
# begin together, the fuller are the steps that follow.
READ_SECONDS: Final = {0: 0.0, 1: 0.0, 2: 1.0, 3: 10.0, 4: 30.0}
# From this priority on nobody watches the first token come.
UNWATCHED: Final = 3
# A shorter piece of a prompt is not worth the small batch that llama.cpp makes of it.
LEAST_PIECE: Final = 64
# Steps in a row whose sequences could all have been chosen for by the search before it is on again: seconds on a GPU.
SEARCHABLE_STEPS: Final = 1000


def closed() -> Transient:
    """The error for work that met an engine that is shutting down or broken."""
    return Transient("The engine was closed or failed; the request can be tried again.", code="engine_closed")


def _slot(sequence: Sequence) -> int:
    """What batches are sorted by: llama.cpp computes sequences in one piece whose numbers follow each other."""
    return sequence.slot


class EngineLoop:
    """Owns ``context``; ``submit`` may be called from any thread. ``steps`` counts finished steps, failed ones too."""

    def __init__(
        self,
        model: LlamaModel,
        context: LlamaContext,
        *,
        sequences: int,
        batch_tokens: int,
        cells: int,
        unified: bool = False,
        host_bytes: int = 0,
        ahead: bool = False,
    ) -> None:
        """``cells`` is the size of the cache, ``unified`` as in the plan; ``host_bytes`` as in :class:`Seats`.

        ``ahead``: the device computes a batch while the host goes on, so texts are passed on meanwhile.
        """
        self.steps = 0
        self.broken = False
        self.meter = Meter(sequences=sequences, running=0, cells=cells, used_cells=0)
        self._moved_at = time.monotonic()
        self._model = model
        self._context = context
        self._batch = Batch(max(batch_tokens, sequences))
        shared = cells if unified else 0
        self._seats = Seats(context, sequences, host_bytes=host_bytes, shared_cells=shared, meter=self.meter)
        self._ahead = ahead
        self._reading_since: float | None = None
        self._searchable_steps = 0
        # What the batch holds, and whether the next one holds the next tokens of the same sequences, `_chosen`.
        self._fed: list[tuple[Sequence, int]] = []
        self._steady = False
        self._chosen: list[int] = []
        # Chosen tokens whose text has not been passed on, -1 for the end, and when each was chosen.
        self._untold: list[tuple[Sequence, int, float]] = []
        # After a failed step its sequences run one by one, so that only the culprit fails.
        self._suspects: list[Sequence] = []
        self._arrived: list[Request] = []
        self._changed = threading.Condition()
        self._closing = False
        self._forgetting = False
        self._woken = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue ``request``; its events tell the rest. Raises ``Transient`` ``engine_closed``."""
        with self._changed:
            if self._closing or self.broken:
                raise closed()
            if not self._seats.occupied and not self._arrived:
                self._moved_at = time.monotonic()
            self._arrived.append(request)
            self._changed.notify()

    def forget(self) -> None:
        """Keep nothing of prompts that have ended, from before the next step on."""
        with self._changed:
            self._forgetting = True
            self._changed.notify()

    def wake(self) -> None:
        """Look at the cancel flags before the next step, even if nothing runs."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    @property
    def stalled_seconds(self) -> float:
        """Seconds since the last step, or since there is work; 0.0 when idle. Never blocks."""
        # Without the lock: the engine thread may hang anywhere, and a value that is a step old does no harm.
        return time.monotonic() - self._moved_at if self._seats.occupied or self._arrived else 0.0

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
            while self._goes_on() or self._admit():
                self._step()
                self.steps += 1
                self._moved_at = time.monotonic()
        except Exception:
            log.exception("the engine thread failed; its requests will be tried again")
        with self._changed:
            self.broken = True
            left = [*self._arrived, *(sequence.request for sequence in self._seats.empty())]
            self._arrived.clear()
        for request in left:
            request.events.put(closed())

    def _goes_on(self) -> bool:
        """Whether the next step computes the same sequences as the last, since nobody has come, gone or ended."""
        # Without the lock: what comes at this moment is seen a step later.
        return self._steady and not (self._arrived or self._closing or self._forgetting or self._woken)

    def _admit(self) -> bool:
        """Drop what was cancelled and seat what waits; ``False`` when closing."""
        self._steady, self._fed = False, []
        while True:
            with self._changed:
                while not (self._closing or self._arrived or self._seats.occupied or self._forgetting):
                    self.meter.idle()
                    self._changed.wait()
                if self._closing:
                    return False
                arrived, self._arrived = self._arrived, []
                forgetting, self._forgetting = self._forgetting, False
                self._woken = False
            if forgetting:
                self._seats.forget()
            for request in arrived:
                self._seats.add(request)
            for sequence in [item for item in self._seats.running if item.request.cancelled]:
                self._tell()
                if not sequence.ended:
                    self._end(sequence, None)
            for sequence in self._seats.remove_waiting(lambda item: item.request.cancelled):
                sequence.finish("cancelled")
            while not self._suspects and self._seats.fill():
                self._tell()
                self._seats.make_way()
            if self._seats.running:
                return True

    def _step(self) -> None:
        steady, self._steady = self._steady, False
        if steady:
            self._batch.advance(self._chosen)
        else:
            self._batch.clear()
            self._fed = self._fill()
        fed = self._fed
        if self._seats.lacks(self._batch.size) and self._make_room():
            return
        if not (steady and self._context.searching):
            self._choose_search()
        code = self._context.decode(self._batch) if fed else 0
        self._tell()
        if code == 1 and self._make_room():
            return
        if code != 0:
            self._isolate(code)
            return
        outputs: list[Sequence] = []
        for sequence, count in fed:
            sequence.fed += count
            if not sequence.ended:
                self._seats.computed(sequence)
            if not sequence.waiting_tokens:
                outputs.append(sequence)
        if fed:
            self.meter.step(self._batch.size, len(self._seats.running), self._seats.used_cells)
        self._suspects = [item for item in self._suspects if item not in outputs]
        if outputs:
            self._sample(outputs)
        if not self._ahead:
            self._tell()

    def _choose_search(self) -> None:
        """Have the likeliest tokens found in the graph while they are enough for all that runs, and not otherwise.

        For the change llama.cpp allocates its buffers anew, so who needs all logits now and then keeps it off.
        """
        enough = all(item.request.searchable for item in self._seats.running)
        self._searchable_steps = self._searchable_steps + 1 if enough else 0
        if not enough or self._searchable_steps > SEARCHABLE_STEPS:
            self._context.search(enough)

    def _fill(self) -> list[tuple[Sequence, int]]:
        """Fill the batch; returns of which sequence it holds how many tokens, in the order of the batch."""
        chosen = [item for item in self._suspects[:1] or self._seats.running if item.reason is None]
        generating = [sequence for sequence in chosen if sequence.waiting_tokens == 1]
        reading = sorted(sequence for sequence in chosen if sequence.waiting_tokens > 1)
        urgent = min((sequence.request.priority for sequence in generating), default=len(Priority))
        first = reading[0].request.priority if reading else len(Priority)
        now = time.monotonic()
        if reading and (first < urgent or self._may_read(urgent, now)):
            self._reading_since = self._reading_since or now
            if fed := self._read(reading, urgent):
                return fed
        self._reading_since = None
        generating.sort(key=_slot)
        self._batch.add_each(
            [sequence.tokens[-1] for sequence in generating],
            [sequence.fed for sequence in generating],
            [sequence.slot for sequence in generating],
        )
        return [(sequence, 1) for sequence in generating]

    def _may_read(self, urgent: int, now: float) -> bool:
        """Whether sequences of this priority can wait for their next token while prompts are read."""
        since = self._reading_since
        return since is None or urgent not in READ_SECONDS or now - since < READ_SECONDS[urgent]

    def _read(self, reading: list[Sequence], urgent: int) -> list[tuple[Sequence, int]]:
        """Add pieces of prompts to the batch, up to their ends or, where another batch of prompts follows, not quite.

        A prompt's last token is what gives logits. While those are not asked for, the host prepares the next batch as
        the device computes this one; the last tokens then make one step together.
        """
        parts: list[tuple[Sequence, int]] = []
        room = self._batch.capacity
        follows = self._ahead and sum(sequence.waiting_tokens for sequence in reading) > room
        behind = min(room, PROMPT_TOKENS.get(urgent, room))
        for sequence in reading:
            # Whoever watches for a first token does not wait for what is less urgent to be read beside it.
            if parts and parts[0][0].request.priority < min(UNWATCHED, sequence.request.priority):
                break
            if room and self._seats.ready(sequence):
                most = room if sequence.request.priority < urgent else min(room, behind)
                if sequence.mark:
                    most = min(most, sequence.mark - sequence.fed)
                held = 1 if follows and sequence.request.priority >= UNWATCHED else 0
                count = min(most, sequence.waiting_tokens - held)
                if parts and count == room < min(LEAST_PIECE, sequence.waiting_tokens - held):
                    continue
                if count > 0:
                    parts.append((sequence, count))
                    room -= count
                    behind -= count
        parts.sort(key=lambda part: _slot(part[0]))
        for sequence, count in parts:
            tokens = sequence.tokens[sequence.fed : sequence.fed + count]
            self._batch.add(tokens, sequence.fed, sequence.slot, output=count == sequence.waiting_tokens)
        return parts

    def _sample(self, outputs: list[Sequence]) -> None:
        """Choose the next token of ``outputs``, whose logits stand in this order."""
        choosers = [sequence.request.chooser for sequence in outputs]
        failed: dict[int, Exception] = {}
        if self._context.searching:
            self._chosen = choose_among(*self._context.likeliest(len(outputs)), choosers)
        else:
            logits = self._context.logits(len(outputs))
            failed = exclude(logits, [sequence.request.matcher for sequence in outputs])
            self._chosen = choose(logits, choosers)
        now, going = time.monotonic(), 0
        for row, (sequence, token) in enumerate(zip(outputs, self._chosen, strict=True)):
            # One whose text met a stop string after this batch had begun has ended already.
            if sequence.ended:
                continue
            try:
                if row in failed:
                    raise failed[row]
                if token < 0:
                    raise ModelError("The model computed no usable number for the next token.", code="model_unusable")
                ends = self._model.ends(token)
                self._untold.append((sequence, -1 if ends else token, now))
                sequence.take(token, ends=ends)
                going += sequence.reason is None
            except Exception as error:
                self._end(sequence, error)
        self._steady = going == self._batch.size == len(self._seats.running) and not self._suspects

    def _tell(self) -> None:
        """Pass the texts of the chosen tokens on, and end what is complete with them."""
        untold, self._untold = self._untold, []
        for sequence, token, chosen_at in untold:
            self._time(sequence, chosen_at)
            if sequence.ended:
                continue
            try:
                sequence.tell(self._model.piece(token) if token >= 0 else b"")
            except Exception as error:
                self._end(sequence, error)
                continue
            if sequence.reason is not None:
                self._end(sequence, None)

    def _time(self, sequence: Sequence, chosen_at: float) -> None:
        request = sequence.request
        if sequence.told_at:
            self.meter.next_token(request.priority, chosen_at - sequence.told_at)
        else:
            self.meter.first_token(request.priority, len(request.prompt), chosen_at - request.submitted)
        sequence.told_at = chosen_at

    def _end(self, sequence: Sequence, error: Exception | None) -> None:
        """Free the slot and hand over the result or ``error``."""
        self._steady = False
        self._seats.leave(sequence, warm=error is None)
        if sequence in self._suspects:
            self._suspects.remove(sequence)
        try:
            if error is not None:
                raise error
            sequence.finish("cancelled" if sequence.request.cancelled else sequence.reason or "stop")
        except Exception as problem:
            sequence.request.events.put(problem)

    def _make_room(self) -> bool:
        """For a step for which a shared cache has no room: give up what is warm, or park the least urgent."""
        self._tell()
        if self._seats.cool():
            return True
        if len(self._seats.running) > 1 and not self._suspects:
            self._seats.park(max(self._seats.running))
            return True
        return False

    def _isolate(self, code: int) -> None:
        """After a failed step: fail the sequence that ran alone, or compute all again one by one to find it."""
        log.warning("llama.cpp failed a step with code %d", code)
        if not self._seats.running:
            return
        if len(self._seats.running) == 1 or self._suspects:
            culprit = self._suspects[0] if self._suspects else self._seats.running[0]
            self._end(culprit, Transient(f"llama.cpp failed on this text (code {code}).", code="engine_failed"))
            return
        self._seats.restart()
        self._suspects = list(self._seats.running)
