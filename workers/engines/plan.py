"""Decides how much context an engine gets before it is created; pure, so that it can be tested without weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.gguf_header import GgufHeader
from services.models import KvType

CELLS: Final = 256
# The cache may take this share of the memory that is free when the model is loaded.
CACHE_SHARE: Final = 0.5
GPU_BATCH: Final = 2048
MICRO_BATCH: Final = 512
# What one CPU core computes of a prompt, in tokens × weight bytes a second; low, so that a step stays short of a lease.
CORE_SPEED: Final = 10e9
STEP_SECONDS: Final = 8.0


@dataclass(frozen=True, slots=True)
class ContextPlan:
    """What an engine gets. ``tokens`` is the context of one sequence, ``cells`` the tokens of the whole cache.

    A split cache has ``tokens`` × ``sequences`` cells; a ``unified`` one may have fewer, into which all sequences grow.
    ``gpu_layers`` as llama.cpp counts them: the output layer is one, -1 stands for all.
    """

    tokens: int
    sequences: int
    batch: int
    cells: int
    unified: bool = False
    kv_type: KvType = "f16"
    gpu_layers: int = -1
    weights_bytes: int = 0
    cache_bytes: int = 0
    compute_bytes: int = 0
    margin_bytes: int = 0


def plan_context(
    header: GgufHeader,
    weight_bytes: int,
    *,
    tokens: int,
    sequences: int,
    cores: int,
    gpu: bool,
    free_bytes: int | None,
    gpu_layers: int = -1,
) -> ContextPlan:
    """The context for a generation model.

    A sequence gets ``tokens`` of context, at most what the model was trained for, rounded up to 256. The cache takes 2
    bytes × layers × KV heads × (key + value width) per token (Gemma 3 270M: 18 KiB; Llama 3.1 8B: 128 KiB), so 16
    sequences of 4,096 tokens take at most 1.1 GiB and 8 GiB. Where that is more than half of ``free_bytes`` (``None``:
    unknown, as on a GPU), there are fewer sequences, at least one.
    """
    trained = header.context_tokens or tokens
    cells = -(-min(tokens, trained) // CELLS) * CELLS
    each = cells * header.cache_bytes_per_token()
    if free_bytes is not None and each:
        sequences = max(1, min(sequences, int(free_bytes * CACHE_SHARE // each)))
    batch = GPU_BATCH if gpu else min(512, max(32, int(STEP_SECONDS * cores * CORE_SPEED / max(weight_bytes, 1))))
    return ContextPlan(
        tokens=min(cells, trained), sequences=sequences, batch=max(batch, sequences), cells=cells * sequences,
        gpu_layers=gpu_layers, weights_bytes=weight_bytes, cache_bytes=each * sequences,
    )  # fmt: skip
