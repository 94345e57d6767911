"""How much memory a model takes in a given shape, computed from its header: weights, cache and compute, by place.

The cache's figure is llama.cpp's own arithmetic. The compute buffer's follows what llama.cpp reserved for several
architectures; where llama.cpp is installed, `dry_run` asks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.gguf_header import GgufHeader
from services.models import KvType

# llama.cpp rounds the tokens that a cache holds for one sequence up to a multiple of this.
CELLS: Final = 256
# Bytes of a value in the cache; q8_0 keeps 32 values in 34 bytes.
_VALUE: Final[dict[KvType, float]] = {"f16": 2.0, "q8_0": 34 / 32}
# Of every so many layers all but the last look back no further than the window, where the file does not say itself.
_PATTERNS: Final = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gemma4": 6, "cohere2": 4, "gpt-oss": 2, "exaone4": 4, "olmo2": 4,
    "llama4": 4,
}  # fmt: skip
_WINDOWS: Final = {"gemma2": 4096, "exaone4": 4096, "llama4": 8192}
# Diffusion and encoder models see all of a text at once and keep nothing of it; every other architecture gets a cache
# from llama.cpp, those of embedding models that were made of a language model (`llama`, `qwen3`, …) too.
_CACHELESS: Final = frozenset({
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "modern-bert",
    "gemma-embedding", "wavtokenizer-dec", "dream", "llada", "llada-moe", "rnd1",
})  # fmt: skip
# The vocabulary's strings and tables in the process, measured with Gemma's 262,144 tokens.
TOKEN_BYTES: Final = 150
# What CUDA takes beside llama.cpp's buffers once a model computes: its libraries' work space and the loaded kernels;
# 88 to 104 MiB on an H200 whatever the model and the context (`make bench NAME=memory`).
LIBRARY_BYTES: Final = 96 * 2**20

# onnxruntime's code and what it keeps of a graph, measured with MiniLM; and what it keeps of a step in its own pool,
# by what the step's tensors hold, measured with one to eight threads: 1.35 to .9.
_ONNX_BYTES: Final = 36 * 2**20
_ONNX_POOL: Final = 1.25


@dataclass(frozen=True, slots=True)
class Shape:
    """What a context is made for: ``cells`` tokens of cache for all ``sequences``, ``micro_batch`` tokens a step.

    ``outputs`` is how many tokens of a step get logits; ``gpu_layers`` as llama.cpp counts them, -1 for all.
    ``searched``: the device finds the greatest logits, for which it keeps them twice and the host four times.
    """

    cells: int
    sequences: int
    micro_batch: int
    outputs: int
    kv_type: KvType = "f16"
    unified: bool = False
    gpu_layers: int = 0
    searched: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes in one place, the GPU or main memory."""

    weights: int
    cache: int
    compute: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.compute


def layers_of(header: GgufHeader) -> int:
    """How many layers llama.cpp can move to a GPU: those of the model and the output."""
    return header.layers + 1


def takes_q8(header: GgufHeader) -> bool:
    """Whether a q8_0 cache can hold the model's keys and values: its blocks are 32 values of one head."""
    return all(_width(header, what, layer) % 32 == 0 for what in ("key", "value") for layer in range(header.layers))


def memory_of(header: GgufHeader, shape: Shape) -> tuple[Sizes, Sizes]:
    """What the model takes on the GPU, CUDA's own part among its compute, and in main memory."""
    blocks = header.layers
    moved = blocks + 1 if shape.gpu_layers < 0 else min(shape.gpu_layers, blocks + 1)
    first = blocks + 1 - moved  # from this layer on they are on the GPU, the output as the last of them
    far = sum(size for layer, size in header.layer_bytes.items() if layer >= first) if moved else 0
    near = sum(header.layer_bytes.values()) - far + header.input_bytes
    output = header.output_bytes + (header.input_bytes if header.tied and moved else 0)
    caches = [_layer_cache(header, shape, layer) for layer in range(blocks)]
    far_cache = sum(caches[first:]) if moved else 0
    buffer = compute_bytes(header, shape)
    inputs = _mask_bytes(header, shape) + _tokens(shape) * header.dimensions * 4
    host = shape.outputs * header.vocabulary * 4 * (4 if shape.searched else 1) + header.vocabulary * TOKEN_BYTES
    if not moved:
        return Sizes(0, 0, 0), Sizes(near + output, sum(caches), buffer + host)
    return (
        Sizes(far + output, far_cache, buffer + LIBRARY_BYTES),
        Sizes(near, sum(caches) - far_cache, (inputs if moved > blocks else buffer) + host),
    )


def memory_of_bert(header: GgufHeader, capacity: int, threads: int) -> Sizes:
    """What onnxruntime takes for batches of ``capacity`` tokens, which may be one text, once it has loaded.

    While it loads, the weights are there twice.
    """
    wide = 6 * header.dimensions + 2 * header.number("feed_forward_length")
    scores = header.number("attention.head_count") * capacity * capacity
    steps = int(threads * 4 * _ONNX_POOL * (capacity * wide + scores))
    return Sizes(header.tensor_bytes, 0, _ONNX_BYTES + header.vocabulary * TOKEN_BYTES + steps)


def compute_bytes(header: GgufHeader, shape: Shape) -> int:
    """The buffer for what a step computes, with flash attention: activations and masks, or at its end the logits."""
    tokens = _tokens(shape)
    experts = header.number("expert_feed_forward_length") * header.number("expert_used_count")
    hidden = max(header.number("feed_forward_length"), experts)
    queries = header.number("attention.head_count") * _width(header, "key", 0)
    activations = tokens * 4 * (3 * hidden + 3 * header.dimensions + queries)
    rows = shape.outputs * (2 if shape.searched else 1)
    logits = 4 * (rows * header.vocabulary + tokens * header.dimensions)
    return max(activations + _mask_bytes(header, shape), logits)


def cache_bytes(header: GgufHeader, shape: Shape) -> int:
    """The cache of all layers."""
    return sum(_layer_cache(header, shape, layer) for layer in range(header.layers))


def _tokens(shape: Shape) -> int:
    return min(shape.micro_batch, shape.cells)


def _cells(header: GgufHeader, shape: Shape, layer: int) -> int:
    """Tokens that a layer keeps of one sequence, or of all in a unified cache."""
    streams = 1 if shape.unified else shape.sequences
    cells = _padded(-(-shape.cells // streams))
    if not _slides(header, layer):
        return cells
    window = header.number("attention.sliding_window") or _WINDOWS.get(header.architecture, 0)
    return _padded(min(cells, window * (shape.sequences if shape.unified else 1) + _tokens(shape)))


def _slides(header: GgufHeader, layer: int) -> bool:
    """Whether the layer looks back no further than the window; unknown architectures count as if none did."""
    usual = _PATTERNS.get(header.architecture)
    if usual is None or not (header.number("attention.sliding_window") or header.architecture in _WINDOWS):
        return False
    given = header.metadata.get(f"{header.architecture}.attention.sliding_window_pattern")
    if isinstance(given, tuple):
        return layer < len(given) and bool(given[layer])
    every = header.number("attention.sliding_window_pattern") or usual
    return layer % every < every - 1


def _layer_cache(header: GgufHeader, shape: Shape, layer: int) -> int:
    if header.architecture in _CACHELESS or layer >= header.layers - header.number("attention.shared_kv_layers"):
        return 0
    own = f"{header.architecture}.attention.head_count_kv" in header.metadata
    heads = header.number("attention.head_count_kv" if own else "attention.head_count", layer)
    latent = header.number("attention.key_length_mla") > 0  # which keeps keys alone and makes the values of them
    width = _width(header, "key", layer) + (0 if latent else _width(header, "value", layer))
    streams = 1 if shape.unified else shape.sequences
    return int(_cells(header, shape, layer) * streams * heads * width * _VALUE[shape.kv_type])


def _width(header: GgufHeader, what: str, layer: int) -> int:
    """Values of a key or of a value of one head."""
    heads = header.number("attention.head_count", layer)
    near = header.number(f"attention.{what}_length_swa") if _slides(header, layer) else 0
    return near or header.number(f"attention.{what}_length") or (header.dimensions // heads if heads else 0)


def _mask_bytes(header: GgufHeader, shape: Shape) -> int:
    """Which tokens see which: two bytes for each token of a step and each cell, once for each kind of layer."""
    kinds = {_cells(header, shape, layer) for layer in range(header.layers)}
    return 2 * _tokens(shape) * sum(kinds)


def _padded(cells: int) -> int:
    return -(-cells // CELLS) * CELLS
