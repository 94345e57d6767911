"""Makes tiny llama-architecture GGUF models with random F32 weights, for tests that need exact results in no time."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WORDS = ["alpha", "beta", "gamma", "delta", "omega", "lien", "rent", "term", "deed", "fee", "sum", "day"]
CONTEXT = 512


def vocabulary() -> tuple[list[bytes], list[float], list[int]]:
    """Control tokens, all single bytes, and a few words with the space before them: a SentencePiece vocabulary."""
    kinds = gguf.TokenType
    tokens: list[tuple[bytes, float, int]] = [
        (b"<unk>", 0.0, kinds.UNKNOWN),
        (b"<s>", 0.0, kinds.CONTROL),
        (b"</s>", 0.0, kinds.CONTROL),
        (b"<turn>", 0.0, kinds.CONTROL),
    ]
    tokens += [(f"<0x{byte:02X}>".encode(), 0.0, kinds.BYTE) for byte in range(256)]
    tokens += [("\u2581".encode(), -1.0, kinds.NORMAL)]
    tokens += [(bytes([letter]), -20.0 - index, kinds.NORMAL) for index, letter in enumerate(range(97, 123))]
    # By length, then by letters: the order of a set differs from process to process, and with it the whole model.
    merges = sorted(
        {word[:end] for word in WORDS for end in range(2, len(word) + 1)}, key=lambda word: (len(word), word)
    )
    tokens += [(merge.encode(), -10.0 + len(merge), kinds.NORMAL) for merge in merges]
    tokens += [(f"\u2581{word}".encode(), -1.0 + len(word), kinds.NORMAL) for word in WORDS]
    return [token for token, _, _ in tokens], [score for _, score, _ in tokens], [int(kind) for _, _, kind in tokens]


def write_tiny_model(
    path: Path,
    *,
    seed: int = 7,
    template: str | None = None,
    contrast: float = 6.0,
    layers: int = 2,
    width: int = 64,
    architecture: str = "llama",
    pooling: gguf.PoolingType | None = None,
) -> Path:
    """Write a model of ``width`` dimensions to ``path``; ``contrast`` sets the logits apart from each other.

    ``pooling`` makes an embedding model of it.
    """
    hidden, heads, kv_heads = 2 * width, 4, 2
    random = np.random.default_rng(seed)
    tokens, scores, kinds = vocabulary()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny Random")
    writer.add_license("Apache-2.0")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if template is not None:
        writer.add_chat_template(template)

    def matrix(name: str, rows: int, columns: int, scale: float) -> None:
        writer.add_tensor(name, (random.standard_normal((rows, columns)) * scale).astype(np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(width, np.float32))

    matrix("token_embd.weight", len(tokens), width, 1.0)
    matrix("output.weight", len(tokens), width, contrast / np.sqrt(width))
    ones("output_norm.weight")
    for layer in range(layers):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        ones(f"{block}.ffn_norm.weight")
        matrix(f"{block}.attn_q.weight", width, width, 0.3)
        matrix(f"{block}.attn_k.weight", width * kv_heads // heads, width, 0.3)
        matrix(f"{block}.attn_v.weight", width * kv_heads // heads, width, 0.3)
        matrix(f"{block}.attn_output.weight", width, width, 0.3)
        matrix(f"{block}.ffn_gate.weight", hidden, width, 0.3)
        matrix(f"{block}.ffn_up.weight", hidden, width, 0.3)
        matrix(f"{block}.ffn_down.weight", width, hidden, 0.3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
