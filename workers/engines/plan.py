"""Decides how a model is loaded into a budget: layers on the GPU, sequences, cache; pure, tested without weights.

What gives way, in this order: the size of a step on a GPU, the precision of the cache, where sequences may share one
their own parts of it, the number of sequences, and at last layers, which move to main memory. The context of a sequence
never does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from services.errors import ModelError
from services.gguf_header import GgufHeader
from services.models import KvType
from workers.engines.bert import onnxruntime_takes
from workers.engines.memory import CELLS, Shape, Sizes, layers_of, memory_of, memory_of_bert, takes_q8

Library: TypeAlias = Literal["llama.cpp", "onnxruntime"]

# Tokens of a step on a GPU, all computed at a time: half as many are read a tenth slower and need half the memory.
GPU_BATCHES: Final = (2048, 1024)
MICRO_BATCH: Final = 512
# What one CPU core computes of a prompt, in tokens × weight bytes a second; low, so that a step stays short of a lease.
CORE_SPEED: Final = 10e9
STEP_SECONDS: Final = 8.0
# Attention over a packed batch of texts grows with its square, so larger batches pay off only where compute is plenty.
CPU_EMBEDDING_BATCH: Final = 512
GPU_EMBEDDING_BATCH: Final = 4096
PACKED_TEXTS: Final = 64
MAX_EMBEDDING_TOKENS: Final = 8192
# Left free where a budget is all of a device's memory: drivers, other programs and llama.cpp's own work space.
MARGIN_BYTES: Final = 2**30
# A shared cache holds the half or the quarter of what all sequences could fill.
SHARED_PARTS: Final = (2, 4)
_ENDLESS: Final = 2**62
# Sequences that are kept while layers move to main memory.
FEW: Final = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: ``kv_type`` ``None`` takes f16 where it fits; ``gpu_layers`` -1 all that fit.

    ``shared`` allows a unified cache with fewer cells than the sequences could fill; ``cores`` compute prompts.
    """

    tokens: int
    sequences: int
    kv_type: KvType | None = None
    gpu_layers: int = -1
    shared: bool = False
    cores: int = 1


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes for one model: on the GPU (0: there is none) and in main memory (``None``: as much as it takes).

    The margins stay free of it.
    """

    gpu: int = 0
    host: int | None = None
    gpu_margin: int = 0
    host_margin: int = 0

    def holds(self, gpu: Sizes, host: Sizes) -> bool:
        """Whether both fit."""
        if gpu.total and gpu.total > self.gpu - self.gpu_margin:
            return False
        return self.host is None or host.total <= self.host - self.host_margin

    def less(self, by: int, *, gpu: bool) -> Budget:
        """The budget with ``by`` bytes less on the GPU, or else in main memory."""
        if gpu:
            return replace(self, gpu=max(1, self.gpu - by))
        return replace(self, host=None if self.host is None else self.host - by)

    def spare(self, gpu: Sizes, host: Sizes) -> int:
        """What is left on the GPU where the model uses it, or else of main memory, which may have no bound."""
        if gpu.total:
            return self.gpu - self.gpu_margin - gpu.total
        return _ENDLESS if self.host is None else self.host - self.host_margin - host.total


@dataclass(frozen=True, slots=True)
class ContextPlan:
    """What an engine gets. ``tokens`` is the context of one sequence, ``cells`` the tokens of the whole cache.

    A split cache has ``tokens`` × ``sequences`` cells; a ``unified`` one may have fewer, into which all sequences grow.
    ``gpu_layers`` as llama.cpp counts them: the output layer is one, -1 stands for all. The bytes are those on the GPU,
    or in main memory where no layer is on one; ``host_bytes`` is what a model on the GPU takes of main memory, and
    ``spare_bytes`` what the budget has left. ``library`` computes.
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
    host_bytes: int = 0
    spare_bytes: int = 0
    library: Library = "llama.cpp"

    @property
    def total_bytes(self) -> int:
        """What it takes of the memory that the plan is about, without the margin."""
        return self.weights_bytes + self.cache_bytes + self.compute_bytes

    @property
    def micro_batch(self) -> int:
        """Tokens that are computed at a time."""
        return self.batch if self.gpu_layers else min(MICRO_BATCH, self.batch)

    @property
    def shape(self) -> Shape:
        """What :mod:`workers.engines.memory` and the dry run are asked about."""
        return Shape(
            cells=self.cells, sequences=self.sequences, micro_batch=self.micro_batch,
            outputs=self.sequences, kv_type=self.kv_type, unified=self.unified, gpu_layers=self.gpu_layers,
            searched=self.gpu_layers < 0,
        )  # fmt: skip


def plan_context(header: GgufHeader, wish: Wish, budget: Budget) -> ContextPlan:
    """The first of the choices that fits; the context of a sequence is at most what the model was trained for.

    Raises ``ModelError`` ``memory_exceeded``, which says what the smallest choice needs.
    """
    smallest = (Sizes(0, 0, 0), Sizes(_ENDLESS, 0, 0))
    for choice in _choices(header, wish, gpu=budget.gpu > 0):
        gpu, host = memory_of(header, choice.shape)
        if budget.holds(gpu, host):
            return _with_sizes(choice, gpu, host, budget)
        smallest = min(smallest, (gpu, host), key=lambda sizes: sizes[0].total + sizes[1].total)
    raise _too_large(*smallest, budget)


def embedding_batch(trained: int, *, gpu: bool) -> int:
    """Tokens of one batch for an embedding model that was trained for texts of ``trained`` tokens."""
    return max(min(trained, MAX_EMBEDDING_TOKENS), GPU_EMBEDDING_BATCH if gpu else CPU_EMBEDDING_BATCH)


def plan_embedding(header: GgufHeader, wish: Wish, budget: Budget) -> ContextPlan:
    """An embedding model that computes a batch in one go. Where onnxruntime does not fit, llama.cpp may.

    Raises ``ModelError`` ``memory_exceeded``.
    """
    layers = wish.gpu_layers if budget.gpu else 0
    capacity = embedding_batch(header.context_tokens, gpu=layers != 0)
    choice = ContextPlan(capacity, PACKED_TEXTS, capacity, capacity, unified=True, gpu_layers=layers)
    if not layers and onnxruntime_takes(header):
        none, host = Sizes(0, 0, 0), memory_of_bert(header, capacity, wish.cores)
        if budget.holds(none, host):
            return _with_sizes(replace(choice, library="onnxruntime"), none, host, budget)
    gpu, host = memory_of(header, embedding_shape(choice))
    if not budget.holds(gpu, host):
        raise _too_large(gpu, host, budget)
    return _with_sizes(choice, gpu, host, budget)


def embedding_shape(plan: ContextPlan) -> Shape:
    """What is computed for embeddings: a batch in one go, each token of which gives an output."""
    return replace(plan.shape, micro_batch=plan.batch, outputs=plan.batch, searched=False)


def _with_sizes(choice: ContextPlan, gpu: Sizes, host: Sizes, budget: Budget) -> ContextPlan:
    there = gpu if gpu.total else host
    return replace(
        choice, weights_bytes=there.weights, cache_bytes=there.cache, compute_bytes=there.compute,
        margin_bytes=budget.gpu_margin if gpu.total else budget.host_margin, host_bytes=host.total if gpu.total else 0,
        spare_bytes=budget.spare(gpu, host),
    )  # fmt: skip


def _choices(header: GgufHeader, wish: Wish, *, gpu: bool) -> Iterator[ContextPlan]:
    """All ways to load the model, the best first."""
    trained = header.context_tokens or wish.tokens
    cells = -(-min(wish.tokens, trained) // CELLS) * CELLS
    tokens = min(cells, trained)
    kinds: tuple[KvType, ...] = (wish.kv_type,) if wish.kv_type else ("f16", "q8_0") if takes_q8(header) else ("f16",)
    if "q8_0" in kinds and not takes_q8(header):
        raise ModelError(
            "The heads of this model do not fill the blocks of a q8_0 cache: set CASEMILL_KV_TYPE=f16 or auto.",
            code="kv_type_unfit",
        )
    fewer = [wish.sequences]
    while fewer[-1] > 1:
        fewer.append(fewer[-1] // 2)

    def ways(layers: int, sequences: int) -> Iterator[ContextPlan]:
        steps = GPU_BATCHES if layers else (_cpu_batch(header, wish.cores),)
        batches = list(dict.fromkeys(max(step, sequences) for step in steps))
        whole = cells * sequences
        for kind in kinds:
            for batch in batches:
                yield ContextPlan(tokens, sequences, batch, whole, kv_type=kind, gpu_layers=layers)
        if wish.shared and sequences > 1:
            for part in SHARED_PARTS:
                room, kind = max(cells, whole // part // CELLS * CELLS), kinds[-1]
                for batch in batches:
                    yield ContextPlan(tokens, sequences, batch, room, unified=True, kv_type=kind, gpu_layers=layers)

    top = layers_of(header)
    wanted = top if wish.gpu_layers < 0 else min(wish.gpu_layers, top)
    if gpu and wanted:
        for sequences in fewer:
            # llama.cpp's -1 also where all are counted: newer files may have layers that this reader does not know.
            yield from ways(-1 if wanted == top else wanted, sequences)
        for sequences in dict.fromkeys((min(FEW, wish.sequences), 1)):
            for layers in range(wanted - 1, 0, -1):
                yield from ways(layers, sequences)
    for sequences in fewer:
        yield from ways(0, sequences)


def _cpu_batch(header: GgufHeader, cores: int) -> int:
    weights = header.tensor_bytes
    return min(512, max(32, int(STEP_SECONDS * cores * CORE_SPEED / max(weights, 1))))


def _too_large(gpu: Sizes, host: Sizes, budget: Budget) -> ModelError:
    room = budget.gpu - budget.gpu_margin + (budget.host or 0) - budget.host_margin
    return ModelError(
        f"The model needs at least {_size(gpu.total + host.total)} (weights {_size(gpu.weights + host.weights)}) and "
        f"{_size(max(0, room))} are there. Use a smaller quantisation or model, a shorter context "
        f"(CASEMILL_CONTEXT_TOKENS), or more memory (CASEMILL_MEMORY_BYTES).",
        code="memory_exceeded",
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
