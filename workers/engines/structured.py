"""Holds generated text to a grammar while it is written: llguidance says which tokens may follow, all others go.

The calling thread checks and compiles (``workers/engines/grammars.py``), the engine thread masks and accepts; what it
finished is validated by the calling thread again, so that no schema can hold up the others.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.errors import InvalidRequest, ModelError
from workers.engines.base import Sampling
from workers.engines.grammars import Grammar, grammar_of, limits
from workers.engines.llama_api import LlamaModel
from workers.engines.rows import each_row

# What computing a mask costs, in passes over the row's logits.
_MASK_PASSES: Final = 8
# For each byte of a mask the greatest logits that its eight tokens may have: +inf or −inf.
_CEILINGS: Final = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little") > 0, np.inf, -np.inf
).astype(np.float32)


class Matcher:
    """Follows one generation through its ``grammar``; used by the engine thread alone after it was built."""

    def __init__(self, matcher: Any, grammar: Grammar, vocab_size: int) -> None:
        self._matcher = matcher
        self.grammar = grammar
        self._mask = np.zeros((vocab_size + 31) // 32, np.int32)
        self._raise_error()

    def exclude(self, logits: NDArray[np.float32]) -> None:
        """Set the logits (vocabulary,) of all tokens that would break the grammar to −inf."""
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._raise_error()
        ceilings = _CEILINGS.take(self._mask.view(np.uint8), axis=0).reshape(-1)
        np.minimum(logits, ceilings[: len(logits)], out=logits)

    def accept(self, token: int) -> None:
        """Go on by ``token``."""
        self._matcher.consume_token(token)
        self._raise_error()

    @property
    def complete(self) -> bool:
        """Whether the text is finished and nothing may follow."""
        return bool(self._matcher.is_stopped())

    def finish(self) -> None:
        """Raise ``ModelError`` ``schema_violated`` where the text may not end here."""
        if not self._matcher.is_accepting():
            raise ModelError("The generated text ends before its grammar does.", code="schema_violated")

    def _raise_error(self) -> None:
        if self._matcher.is_error():
            reason = str(self._matcher.get_error()).splitlines()[0][:300]
            raise InvalidRequest(f"{self.grammar.name} is too complex to hold to: {reason}", code="schema_unsupported")


def exclude(logits: NDArray[np.float32], matchers: Sequence[Matcher | None]) -> dict[int, Exception]:
    """Exclude in each row of ``logits`` what its matcher does not allow; returns what failed, by row."""
    problems: dict[int, Exception] = {}
    held = {row: matcher for row, matcher in enumerate(matchers) if matcher is not None}

    def work(row: int) -> None:
        try:
            held[row].exclude(logits[row])
        except Exception as error:
            problems[row] = error

    each_row(work, list(held), _MASK_PASSES * logits.shape[1])
    return problems


class Compiler:
    """Makes matchers for one model; its view of the vocabulary is built at first use (about a second)."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._tokenizer: Any = None

    def matcher(self, sampling: Sampling) -> Matcher | None:
        """A fresh matcher for what ``sampling`` holds the text to, if anything. Raises as :func:`grammar_of`."""
        grammar = grammar_of(sampling)
        if grammar is None:
            return None
        llguidance: Any = importlib.import_module("llguidance")
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = llguidance.LLTokenizer.from_llamacpp(
                    tokens=[self._spelling(token) for token in range(self._model.vocab_size)],
                    vocab_ptr=self._model.vocab,
                    tokenize_fptr=self._model.tokenize_address,
                    eos_token=[token for token in range(self._model.vocab_size) if self._model.ends(token)],
                    slices=None,
                )
        matcher = llguidance.LLMatcher(self._tokenizer, grammar.text, log_level=0, limits=limits())
        return Matcher(matcher, grammar, self._model.vocab_size)

    def _spelling(self, token: int) -> bytes:
        """The token as llguidance wants it: what is no text begins with the byte 0xFF, which no text has."""
        spelled = self._model.piece(token, special=True)
        return b"\xff" + spelled if self._model.is_control(token) else spelled
