"""One llama.cpp context: computes batches, keeps what sequences have read, gives logits, likely tokens or vectors."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.errors import ModelError, Transient
from services.models import KvType
from workers.engines.batch import Batch
from workers.engines.graph_top_k import KEPT, GraphTopK
from workers.engines.llama_api import POOL_NONE, LlamaModel, gpus, native_llama


class LlamaContext:
    """One llama.cpp context; every call must come from one thread at a time."""

    def __init__(  # noqa: PLR0913 (each is one of llama.cpp's own parameters)
        self,
        model: LlamaModel,
        *,
        tokens: int,
        batch: int,
        micro_batch: int,
        sequences: int,
        threads: int,
        embeddings: bool = False,
        pooled: bool = True,
        unified: bool = False,
        kv_type: KvType = "f16",
        flash_attn: bool | None = None,
        search: bool = False,
    ) -> None:
        """``tokens`` is the context of all ``sequences`` together: split evenly, or shared by all where ``unified``.

        ``embeddings`` asks for vectors instead of logits, ``pooled`` for one a sequence and not one a token.
        ``kv_type`` is what the cache holds; ``flash_attn`` ``None`` uses it where the device can, and a ``q8_0`` cache
        needs it. ``search`` begins with :attr:`searching` on, where the devices can do it. Raises ``ModelError``
        ``memory_exceeded``.
        """
        self._native = native_llama()
        self._sequences = sequences
        self._vocab_size = model.vocab_size
        self._dimensions = model.dimensions
        params = self._native.llama_context_default_params()
        params.n_ctx = tokens
        params.n_batch = batch
        params.n_ubatch = micro_batch
        params.n_seq_max = sequences
        # The logits buffer holds this many rows of the whole vocabulary.
        params.n_outputs_max = 0 if embeddings else sequences
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = embeddings
        if not pooled:
            params.pooling_type = POOL_NONE
        params.kv_unified = unified or embeddings
        params.type_k = params.type_v = getattr(self._native, f"GGML_TYPE_{kv_type.upper()}")
        attention = "AUTO" if flash_attn is None else "ENABLED" if flash_attn else "DISABLED"
        params.flash_attn_type = getattr(self._native, f"LLAMA_FLASH_ATTN_TYPE_{attention}")
        # Sliding-window layers keep their window only: nothing here goes back to an earlier part of a sequence.
        params.swa_full = False
        self._top_k = GraphTopK(self._native) if search else None
        if self._top_k and not self._top_k.supported(gpus() or [], self._vocab_size):
            self._top_k = None
        self.searching = self._top_k is not None
        if self._top_k:
            # One row a sequence and step; without this each sequence's part of the graph counts once an output.
            params.n_outputs_max_per_seq = 1
            chains = self._top_k.chains(sequences)
            config = self._native.llama_sampler_seq_config
            configs = (config * sequences)(
                *(config(at, ctypes.cast(chain, ctypes.c_void_p)) for at, chain in enumerate(chains))
            )
            params.samplers, params.n_samplers = configs, sequences
        # Where the likeliest tokens stood last, and how to read them there: making arrays takes longer than all else.
        self._likeliest: tuple[tuple[int, int, int], tuple[NDArray[np.float32], NDArray[np.int32]]] | None = None
        self._context: Any = self._native.llama_init_from_model(model.handle, params)
        if not self._context:
            if self._top_k:
                self._top_k.free()
            raise ModelError(
                "There is not enough memory for the model's context: lower CASEMILL_SEQUENCES or "
                "CASEMILL_CONTEXT_TOKENS.",
                code="memory_exceeded",
            )
        self._memory: Any = self._native.llama_get_memory(self._context)
        self.tokens_per_sequence = int(self._native.llama_n_ctx_seq(self._context))

    def decode(self, batch: Batch) -> int:
        """Run the batch: 0, or llama.cpp's code (1 no room in the cache, 2 aborted, below 0 an error)."""
        return int(self._native.llama_decode(self._context, batch.native))

    def logits(self, rows: int) -> NDArray[np.float32]:
        """Logits of the last batch's outputs in their order, (rows, vocabulary); writable, valid until ``decode``."""
        pointer = self._native.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (rows, self._vocab_size))

    def search(self, wanted: bool) -> None:
        """Set :attr:`searching` for the following batches, where it can be: then :meth:`likeliest` has their outputs.

        After a change llama.cpp plans its graphs and allocates their buffers anew with the next batch. Without memory
        for them it ends the process.
        """
        if self._top_k is None or wanted == self.searching:
            return
        chains = self._top_k.chains(self._sequences) if wanted else [None] * self._sequences
        for sequence, chain in enumerate(chains):
            self._native.llama_set_sampler(self._context, sequence, chain)
        if not wanted:
            self._top_k.free()
        self.searching = wanted

    def likeliest(self, rows: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """The greatest logits of the last batch's outputs, the greatest first, and their tokens, both (rows, ``KEPT``).

        Tokens of equal logits come in any order. Valid until ``decode``.
        """
        count = self._native.llama_get_sampled_logits_count_ith
        if not all(count(self._context, row) == KEPT for row in (-rows, -1)):
            raise Transient("llama.cpp gave no likeliest tokens; try again.", code="engine_failed")
        logits = self._native.llama_get_sampled_logits_ith(self._context, -rows)
        tokens = self._native.llama_get_sampled_candidates_ith(self._context, -rows)
        where = ctypes.addressof(logits.contents), ctypes.addressof(tokens.contents), rows
        if self._likeliest is None or self._likeliest[0] != where:
            shape = rows, self._vocab_size
            arrays = np.ctypeslib.as_array(logits, shape)[:, :KEPT], np.ctypeslib.as_array(tokens, shape)[:, :KEPT]
            self._likeliest = where, arrays
        return self._likeliest[1]

    def pooled(self, sequence: int) -> NDArray[np.float32]:
        """The pooled vector of a sequence of the last batch, (dimensions,), not normalised; a copy."""
        pointer = self._native.llama_get_embeddings_seq(self._context, sequence)
        if not pointer:
            raise Transient("llama.cpp gave no vector for a text; try again.", code="engine_failed")
        return np.ctypeslib.as_array(pointer, (self._dimensions,)).copy()

    def token_vectors(self, rows: int) -> NDArray[np.float32]:
        """Vectors of the last batch's tokens, (rows, dimensions), where ``pooled`` is off; valid until ``decode``."""
        pointer = self._native.llama_get_embeddings(self._context)
        if not pointer:
            raise Transient("llama.cpp gave no vectors; try again.", code="engine_failed")
        return np.ctypeslib.as_array(pointer, (rows, self._dimensions))

    def forget(self, sequence: int) -> None:
        """Free the cache of one sequence."""
        if self._memory:
            self._native.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def whole(self, sequence: int) -> bool:
        """Whether the cache has all of a sequence from its first token on, no sliding window having dropped any."""
        return bool(self._memory) and int(self._native.llama_memory_seq_pos_min(self._memory, sequence)) == 0

    def cut(self, sequence: int, position: int) -> bool:
        """Free what a sequence holds from ``position`` on; ``False``, and nothing is left, where that cannot be done.

        It cannot where a sliding window has dropped what stands before ``position``, nor in a recurrent state.
        """
        if self.whole(sequence) and self._native.llama_memory_seq_rm(self._memory, sequence, position, -1):
            return True
        self.forget(sequence)
        return False

    def save(self, sequence: int) -> NDArray[np.uint8]:
        """A copy of what one sequence has in the cache, in the host's memory; empty where llama.cpp gives none."""
        state = np.empty(int(self._native.llama_state_seq_get_size(self._context, sequence)), np.uint8)
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        return state[: int(self._native.llama_state_seq_get_data(self._context, pointer, len(state), sequence))]

    def restore(self, sequence: int, state: NDArray[np.uint8]) -> bool:
        """Put what :meth:`save` gave, of any sequence, in place of what ``sequence`` holds; ``False`` without room."""
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if self._native.llama_state_seq_set_data(self._context, pointer, len(state), sequence):
            return True
        self.forget(sequence)
        return False

    def clear(self) -> None:
        """Free the cache of all sequences."""
        if self._memory:
            self._native.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        """Free the context."""
        if self._context:
            context, self._context = self._context, None
            self._native.llama_free(context)
            if self._top_k:
                self._top_k.free()
