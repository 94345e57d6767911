"""Writes all-MiniLM-L6-v2 (safetensors and BERT word pieces) as the GGUF file that llama.cpp's encoder reads."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from numpy.typing import NDArray

from services.errors import ModelError

MINILM: Final = "all-minilm-l6-v2"
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Left out: the pooler, which sentence embeddings do not use, and the position numbers, which are 0, 1, 2 …
_EMBEDDINGS: Final = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
_LAYER: Final = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def convert_minilm(folder: Path, target: Path, *, name: str = MINILM, adapter: Path | None = None) -> None:
    """Convert the model in ``folder`` (``model.safetensors``, ``config.json``, ``vocab.txt``) to ``target``.

    The file says that it is called ``name``.

    All values stay F32, which CPUs multiply faster than F16. ``adapter`` is an ``.npz`` with ``NAME.A`` (r, i) and
    ``NAME.B`` (o, r) for some weights W (o, i) of the model, which become W + B·A (low-rank adaptation).

    Raises ``ModelError`` ``model_damaged`` where a file is missing or unfit.
    """
    # Called without its types, which leave a part unknown.
    safetensors: Any = importlib.import_module("safetensors.numpy")
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        vocabulary = (folder / "vocab.txt").read_text("utf-8").split("\n")
        tensors: dict[str, NDArray[np.float32]] = safetensors.load_file(folder / "model.safetensors")
        if vocabulary[-1] == "":
            vocabulary.pop()
        if adapter is not None:
            _adapt(tensors, adapter)
        _write(name, config, vocabulary, tensors, target)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} holds no complete MiniLM model: {error}. Reinstall it.", code="model_damaged"
        ) from error


def phantom(token: str) -> str:
    """A word piece as llama.cpp spells it: word beginnings carry ``▁``, continuations lose their ``##``."""
    if token in _SPECIAL:
        return token
    return token[2:] if token.startswith("##") and len(token) > 2 else f"\u2581{token}"


def _adapt(tensors: dict[str, NDArray[np.float32]], adapter: Path) -> None:
    with np.load(adapter, allow_pickle=False) as arrays:
        for name in (part.removesuffix(".B") for part in arrays.files if part.endswith(".B")):
            low, high = arrays[f"{name}.A"].astype(np.float32), arrays[f"{name}.B"].astype(np.float32)
            tensors[f"{name}.weight"] = tensors[f"{name}.weight"] + high @ low


def _write(
    name: str, config: dict[str, Any], vocabulary: list[str], tensors: dict[str, NDArray[np.float32]], target: Path
) -> None:
    layers = int(config["num_hidden_layers"])
    if len(vocabulary) != len(tensors["embeddings.word_embeddings.weight"]):
        raise ValueError("vocabulary and embeddings differ in length")
    writer = gguf.GGUFWriter(target, "bert")
    writer.add_name(name)
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(layers)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(int(config["num_attention_heads"]))
    writer.add_layer_norm_eps(float(config["layer_norm_eps"]))
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(int(config["type_vocab_size"]))
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([phantom(token) for token in vocabulary])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in _SPECIAL else gguf.TokenType.NORMAL for token in vocabulary]
    )
    numbers = {token: number for number, token in enumerate(vocabulary)}
    writer.add_pad_token_id(numbers["[PAD]"])
    writer.add_unk_token_id(numbers["[UNK]"])
    writer.add_bos_token_id(numbers["[CLS]"])
    writer.add_sep_token_id(numbers["[SEP]"])
    writer.add_mask_token_id(numbers["[MASK]"])
    names = dict(_EMBEDDINGS)
    for layer in range(layers):
        for source, ours in _LAYER.items():
            for part in ("weight", "bias"):
                names[f"encoder.layer.{layer}.{source}.{part}"] = f"blk.{layer}.{ours}.{part}"
    for source, ours in names.items():
        values = np.ascontiguousarray(tensors[source], np.float32)
        writer.add_tensor(ours, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
