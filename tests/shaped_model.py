"""Makes GGUF files with the header of a real model and no weights: sparse files of full size, for memory plans."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import gguf
import numpy as np

_QUANT = gguf.GGMLQuantizationType


@dataclass(frozen=True)
class ModelShape:
    """The measures of a model; ``tied``: the output layer shares the weights of the token embedding."""

    architecture: str
    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    context: int
    window: int = 0
    tied: bool = False


LLAMA_8B = ModelShape("llama", 32, 4096, 14336, 32, 8, 128, 128_256, 131_072)
GEMMA_4B = ModelShape("gemma3", 34, 2560, 10240, 8, 4, 256, 262_144, 131_072, window=1024, tied=True)
QWEN_7B = ModelShape("qwen2", 28, 3584, 18944, 28, 4, 128, 152_064, 32_768)


def write_shaped_model(path: Path, shape: ModelShape, kind: gguf.GGMLQuantizationType = _QUANT.Q4_K) -> Path:
    """Write the header to ``path``, matrices of ``kind`` and vectors of F32; the weights are a hole in the file."""
    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_name(f"{shape.architecture} in shape only")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_layer_norm_rms_eps(1e-6)
    if shape.window:
        writer.add_sliding_window(shape.window)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"t{number}" for number in range(shape.vocabulary - len(tokens))]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    end = 0

    def tensor(name: str, *dimensions: int) -> None:
        nonlocal end
        quant = kind if len(dimensions) > 1 else _QUANT.F32
        values, size = gguf.GGML_QUANT_SIZES[quant]
        count = prod(dimensions) // values * size
        writer.add_tensor_info(name, dimensions, np.dtype(np.float32), count, raw_dtype=quant)
        end += -(-count // 32) * 32

    tensor("token_embd.weight", shape.vocabulary, shape.width)
    tensor("output_norm.weight", shape.width)
    if not shape.tied:
        tensor("output.weight", shape.vocabulary, shape.width)
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        tensor(f"{block}.attn_norm.weight", shape.width)
        tensor(f"{block}.attn_q.weight", queries, shape.width)
        tensor(f"{block}.attn_k.weight", keys, shape.width)
        tensor(f"{block}.attn_v.weight", keys, shape.width)
        tensor(f"{block}.attn_output.weight", shape.width, queries)
        tensor(f"{block}.ffn_norm.weight", shape.width)
        tensor(f"{block}.ffn_gate.weight", shape.hidden, shape.width)
        tensor(f"{block}.ffn_up.weight", shape.hidden, shape.width)
        tensor(f"{block}.ffn_down.weight", shape.width, shape.hidden)
        if shape.architecture == "gemma3":
            tensor(f"{block}.post_attention_norm.weight", shape.width)
            tensor(f"{block}.post_ffw_norm.weight", shape.width)
            tensor(f"{block}.attn_q_norm.weight", shape.head_width)
            tensor(f"{block}.attn_k_norm.weight", shape.head_width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    header = -(-path.stat().st_size // 32) * 32
    with path.open("r+b") as file:
        file.truncate(header + end)
    return path
