"""Which GGUF files are BERT encoders that onnxruntime computes as llama.cpp does; reads their headers alone."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Final

from services.gguf_header import GgufHeader
from workers.engines.llama_api import POOL_MEAN

_LIBRARIES: Final = ("onnx", "onnxruntime")
_F32: Final = 0
# onnxruntime keeps the attention of a whole text at once, which grows with the square of its tokens.
_LONGEST: Final = 1024


def onnxruntime_takes(header: GgufHeader) -> bool:
    """Whether the model can be computed so on a CPU here; some systems have no wheel of the library."""
    return _is_plain_bert(header) and _installed()


@cache
def _installed() -> bool:
    try:
        for name in _LIBRARIES:
            importlib.import_module(name)
    except (ImportError, OSError):  # not there, or without what it needs of the system
        return False
    return True


def _is_plain_bert(header: GgufHeader) -> bool:
    """Whether the file is a BERT that averages its tokens, in F32, with the tensors of the original and no others."""
    heads = header.metadata.get("bert.attention.head_count")
    if header.architecture != "bert" or header.pooling != POOL_MEAN or not isinstance(heads, int) or heads < 1:
        return False
    found = {tensor.name: tensor.shape for tensor in header.tensors}
    whole = len(found) == len(header.tensors) and all(tensor.kind == _F32 for tensor in header.tensors)
    types = found.pop("token_types.weight", ())
    return (
        whole
        and header.metadata.get("bert.attention.causal") is False
        and header.context_tokens <= _LONGEST
        and header.dimensions % heads == 0
        and len(types) == 2
        and types[0] == header.dimensions
        and types[1] > 0
        and header.number("block_count") == header.layers > 0
        and found == _shapes(header)
    )


def _shapes(header: GgufHeader) -> dict[str, tuple[int, ...]]:
    """The tensors of the original but those of token types, and their shapes, the fastest index first."""
    width, wide = header.dimensions, header.number("feed_forward_length")
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (width, header.vocabulary),
        "position_embd.weight": (width, header.context_tokens),
        "token_embd_norm.weight": (width,),
        "token_embd_norm.bias": (width,),
    }
    matrices = {
        "attn_q": (width, width), "attn_k": (width, width), "attn_v": (width, width), "attn_output": (width, width),
        "ffn_up": (width, wide), "ffn_down": (wide, width),
    }  # fmt: skip
    for layer in range(header.layers):
        for part, shape in matrices.items():
            shapes[f"blk.{layer}.{part}.weight"] = shape
            shapes[f"blk.{layer}.{part}.bias"] = shape[1:]
        for part in ("attn_output_norm", "layer_output_norm"):
            shapes[f"blk.{layer}.{part}.weight"] = shapes[f"blk.{layer}.{part}.bias"] = (width,)
    return shapes
