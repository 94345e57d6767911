"""Text generation on a GGUF model: tokenizes and waits in the calling threads, computes in one engine thread."""

from __future__ import annotations

import logging
from dataclasses import replace
from queue import Empty
from typing import Final

import numpy as np
import psutil

from services.errors import InvalidRequest, ModelError, Transient
from services.gguf_header import GgufHeader
from services.models import Model
from workers.engines.base import (
    Cancelled,
    Generation,
    Messages,
    OnText,
    Sampling,
    Tick,
    TokenLogprob,
    context_exceeded,
    never,
    no_text,
    no_tick,
)
from workers.engines.chat import ChatPrompt, ChatTemplate, unmarked
from workers.engines.llama_api import LlamaModel, native_llama
from workers.engines.llama_context import LlamaContext
from workers.engines.loading import CLOSE_SECONDS
from workers.engines.loop import EngineLoop
from workers.engines.meter import Meter
from workers.engines.plan import ContextPlan
from workers.engines.sampling import Chooser
from workers.engines.sequence import Request
from workers.engines.structured import Compiler

log = logging.getLogger("casemill.engine")

# How often a waiting thread looks whether it was cancelled.
POLL_SECONDS: Final = 0.05
# A cancelled request whose engine made no step for this long is given up; longer than any step that is planned.
STALL_SECONDS: Final = 30.0
# Of the host's free memory, what prefixes and parked sequences may take.
HOST_SHARE: Final = 1 / 8


class LlamaGeneration:
    """A :class:`~workers.engines.base.GenerationEngine` on llama.cpp with continuous batching."""

    def __init__(
        self,
        model: Model,
        header: GgufHeader,
        plan: ContextPlan,
        *,
        threads: int,
        extra_buffers: bool = False,
    ) -> None:
        """Load the weights; ``extra_buffers`` as the probe found.

        Raises ``ModelError`` (``model_damaged``, ``memory_exceeded``, ``chat_template_broken``).
        """
        self._model = model
        self._llama = LlamaModel(model.path, gpu_layers=plan.gpu_layers, extra_buffers=extra_buffers)
        try:
            template = header.chat_template
            self._chat = ChatTemplate(template, bos=self._special(self._llama.bos), eos=self._special(self._llama.eos))
            self._context, sequences = self._create_context(plan, threads)
        except BaseException:
            self._llama.close()
            raise
        self.context_tokens = min(plan.tokens, self._context.tokens_per_sequence)
        self.sequences = sequences
        self._compiler = Compiler(self._llama)
        self._loop = EngineLoop(
            self._llama, self._context, sequences=sequences, batch_tokens=plan.batch,
            cells=plan.cells * sequences // plan.sequences, unified=plan.unified, host_bytes=_host_bytes(),
            ahead=plan.gpu_layers != 0 and bool(native_llama().llama_supports_gpu_offload()),
        )  # fmt: skip

    def _special(self, token: int) -> str:
        return self._llama.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def _create_context(self, plan: ContextPlan, threads: int) -> tuple[LlamaContext, int]:
        sequences = plan.sequences
        while True:
            try:
                context = LlamaContext(
                    self._llama, tokens=plan.cells * sequences // plan.sequences, batch=plan.batch,
                    micro_batch=plan.micro_batch, sequences=sequences, threads=threads,
                    unified=plan.unified, kv_type=plan.kv_type, flash_attn=True if plan.kv_type == "q8_0" else None,
                    search=plan.shape.searched,
                )  # fmt: skip
            except ModelError:
                if sequences == 1:
                    raise
                log.warning("no memory for %d sequences of %s, trying half", sequences, self._model.name)
                sequences //= 2
            else:
                return context, sequences

    @property
    def model(self) -> Model:
        """The model behind this engine."""
        return self._model

    @property
    def broken(self) -> bool:
        """Whether the engine thread is gone, so that a new engine is needed."""
        return self._loop.broken

    @property
    def meter(self) -> Meter:
        """What the engine has done so far."""
        return self._loop.meter

    @property
    def stalled_seconds(self) -> float:
        """See :attr:`workers.engines.base.GenerationEngine.stalled_seconds`."""
        return self._loop.stalled_seconds

    def generate(
        self,
        prompt: str,
        sampling: Sampling,
        *,
        priority: int = 2,
        scope: str = "",
        on_text: OnText = no_text,
        cancelled: Cancelled = never,
        tick: Tick = no_tick,
    ) -> Generation:
        """See :meth:`workers.engines.base.GenerationEngine.generate`."""
        sampling.check()
        tokens = self.tokenize(prompt)
        # The token that every prompt begins with is no prompt.
        if not tokens or not prompt:
            raise InvalidRequest("The prompt is empty.", code="prompt_empty")
        if len(tokens) + sampling.max_tokens > self.context_tokens:
            what = f"The prompt ({len(tokens):,} tokens) with max_tokens ({sampling.max_tokens:,})"
            raise context_exceeded(what, len(tokens) + sampling.max_tokens, self.context_tokens)
        beyond = [token for token in sampling.logit_bias if token >= self._llama.vocab_size]
        if beyond:
            raise InvalidRequest(f"Sampling: logit_bias names no token {beyond[0]}.", code="sampling_invalid")
        matcher = self._compiler.matcher(sampling)
        request = Request(np.array(tokens, np.int32), sampling, priority, Chooser(sampling, tokens), matcher, scope)
        self._loop.submit(request)
        try:
            generation = self._wait(request, on_text, cancelled, tick)
        except BaseException:
            # Also where a callback raised: the sequence must not go on for nobody.
            self._cancel(request)
            raise
        if matcher is not None and generation.finish_reason == "stop":
            matcher.grammar.validate(generation.text)
        if sampling.logprobs is None:
            return generation
        return replace(generation, logprobs=tuple(self._spelled(logprob) for logprob in request.chooser.logprobs))

    def _spelled(self, logprob: TokenLogprob) -> TokenLogprob:
        top = tuple(self._spelled(other) for other in logprob.top)
        return replace(logprob, piece=self._llama.piece(logprob.token, special=True), top=top)

    def _wait(self, request: Request, on_text: OnText, cancelled: Cancelled, tick: Tick) -> Generation:
        seen = self._loop.steps
        while True:
            try:
                event = request.events.get(timeout=POLL_SECONDS)
            except Empty:
                event = None
            if isinstance(event, Generation):
                return event
            if isinstance(event, BaseException):
                raise event
            if event:
                on_text(event)
            # Progress of the engine, not of this request: a request that waits for a slot is alive as well.
            if self._loop.steps != seen:
                seen = self._loop.steps
                tick()
            if not request.cancelled and cancelled():
                self._cancel(request)
            if request.cancelled and self._loop.stalled_seconds > STALL_SECONDS:
                raise Transient(f"The engine of {self._model.name} hangs; try again.", code="engine_stalled")

    def _cancel(self, request: Request) -> None:
        request.cancelled = True
        self._loop.wake()

    def chat_prompt(self, messages: Messages) -> str:
        """See :meth:`workers.engines.base.GenerationEngine.chat_prompt`."""
        return self._chat.render(messages)

    def count_tokens(self, text: str) -> int:
        """Tokens of ``text`` as a prompt, with what the model puts before it."""
        return len(self.tokenize(text))

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids of a prompt. Only the template's own parts of a :class:`ChatPrompt` may name control tokens."""
        if not isinstance(prompt, ChatPrompt):
            return self._llama.tokenize(unmarked(prompt), special=False, start=True)
        parts = prompt.parts()
        posing = any(
            written
            and self._llama.tokenize(text, special=True, start=False)
            != self._llama.tokenize(text, special=False, start=False)
            for text, written in parts
        )
        if posing:
            tokens = self._llama.tokenize("", special=False, start=True)
            for text, written in parts:
                tokens += self._llama.tokenize(text, special=not written, start=False)
        else:
            tokens = self._llama.tokenize(prompt.plain(), special=True, start=True)
        # Many templates write the beginning token that the tokenizer adds as well.
        twice = len(tokens) > 1 and tokens[0] == tokens[1] == self._llama.bos
        return tokens[1:] if twice else tokens

    def forget(self) -> None:
        """See :meth:`workers.engines.base.GenerationEngine.forget`."""
        self._loop.forget()

    def close(self) -> None:
        """Stop the engine thread and free the weights."""
        if not self._loop.close(CLOSE_SECONDS):
            log.error("the engine of %s hangs; its memory is freed when the process ends", self._model.name)
            return
        self._context.close()
        self._llama.close()


def _host_bytes() -> int:
    return int(psutil.virtual_memory().available * HOST_SHARE)
