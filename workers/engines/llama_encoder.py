"""An encoder on llama.cpp: the texts of a batch are sequences of one context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.errors import Transient
from workers.engines.batch import Batch
from workers.engines.llama_api import POOL_MEAN, LlamaModel
from workers.engines.llama_context import LlamaContext
from workers.engines.plan import PACKED_TEXTS


class LlamaEncoder:
    """See :class:`workers.engines.embeddings.Encoder`; one thread at a time may compute."""

    def __init__(self, model: LlamaModel, *, capacity: int, threads: int) -> None:
        """``capacity`` is the tokens of a batch. Raises ``ModelError`` ``memory_exceeded``."""
        self.means = model.pooling == POOL_MEAN
        # An encoder computes a batch in one go and kills the process where it exceeds n_ubatch.
        self._context = LlamaContext(
            model, tokens=capacity, batch=capacity, micro_batch=capacity, sequences=PACKED_TEXTS,
            threads=threads, embeddings=True, pooled=not self.means,
        )  # fmt: skip
        self._batch = Batch(capacity)

    def compute(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See :meth:`workers.engines.embeddings.Encoder.compute`."""
        self._batch.clear()
        for sequence, ids in enumerate(texts):
            self._batch.add(ids, 0, sequence, output=True, output_all=True)
        self._context.clear()
        code = self._context.decode(self._batch)
        if code != 0:
            raise Transient(f"llama.cpp failed on these texts (code {code}).", code="engine_failed")
        if self.means:
            return self._context.token_vectors(self._batch.size)
        return np.stack([self._context.pooled(sequence) for sequence in range(len(texts))])

    def close(self) -> None:
        """Free the context."""
        self._context.close()
