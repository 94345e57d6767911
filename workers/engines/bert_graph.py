"""A BERT encoder of a GGUF file as onnxruntime reads it: the graph and the weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.gguf_header import GgufHeader

# The graph's inputs, (texts, tokens) and (texts), and its output, (texts, tokens, width).
IDS: Final = "ids"
LENGTHS: Final = "lengths"
STATES: Final = "states"

# onnxruntime's own operators for transformers, each of which does several standard ones in one pass.
_FUSED: Final = "com.microsoft"
_OPSET: Final = 17
_IR_VERSION: Final = 8

Arrays = dict[str, NDArray[np.float32]]


def read_weights(path: Path, header: GgufHeader) -> Arrays:
    """The constants of :func:`bert_graph` out of the file ``header`` was read from; matrices as (inputs, outputs)."""
    file = np.memmap(path, np.uint8, "r")
    found = {
        tensor.name: file[tensor.offset : tensor.offset + tensor.size].view(np.float32).reshape(tensor.shape[::-1])
        for tensor in header.tensors
    }

    def matrix(name: str) -> NDArray[np.float32]:
        return np.ascontiguousarray(found[f"{name}.weight"].T)

    weights: Arrays = {
        "words": np.array(found["token_embd.weight"]),
        # Every text is of the first type.
        "places": found["position_embd.weight"] + found["token_types.weight"][0],
        **_both(found, "token_embd_norm"),
    }
    for layer in range(header.layers):
        at = f"blk.{layer}"
        three = [f"{at}.attn_{part}" for part in "qkv"]
        weights[f"{at}.qkv.weight"] = np.concatenate([matrix(part) for part in three], axis=1)
        weights[f"{at}.qkv.bias"] = np.concatenate([found[f"{part}.bias"] for part in three])
        for part in ("attn_output", "ffn_up", "ffn_down"):
            weights[f"{at}.{part}.weight"] = matrix(f"{at}.{part}")
            weights[f"{at}.{part}.bias"] = np.array(found[f"{at}.{part}.bias"])
        for part in ("attn_output_norm", "layer_output_norm"):
            weights |= _both(found, f"{at}.{part}")
    return weights


def _both(found: Arrays, part: str) -> Arrays:
    return {f"{part}.{kind}": np.array(found[f"{part}.{kind}"]) for kind in ("weight", "bias")}


def bert_graph(header: GgufHeader, weights: Arrays) -> Any:
    """The ``onnx.ModelProto`` of the encoder, whose constants are those of ``weights``, given at load."""
    onnx: Any = importlib.import_module("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    epsilon, heads = header.decimal("attention.layer_norm_epsilon"), header.number("attention.head_count")

    def fused(kind: str, inputs: list[str], outputs: list[str], **options: Any) -> Any:
        return helper.make_node(kind, inputs, outputs, domain=_FUSED, **options)

    def norm(part: str) -> list[str]:
        return [f"{part}.weight", f"{part}.bias"]

    state = "embedded"
    nodes = [
        fused(
            "EmbedLayerNormalization", [IDS, "", "words", "places", "", *norm("token_embd_norm")], [state, "unused"],
            epsilon=epsilon,
        )
    ]  # fmt: skip
    for layer in range(header.layers):
        at = f"blk.{layer}"
        attended, mixed, middle, up, active, down = (
            f"{at}/{step}" for step in ("attended", "mixed", "middle", "up", "active", "down")
        )
        after = STATES if layer == header.layers - 1 else f"{at}/after"
        nodes += [
            fused("Attention", [state, *norm(f"{at}.qkv"), LENGTHS], [attended], num_heads=heads),
            helper.make_node("MatMul", [attended, f"{at}.attn_output.weight"], [mixed]),
            fused(
                "SkipLayerNormalization", [mixed, state, *norm(f"{at}.attn_output_norm"), f"{at}.attn_output.bias"],
                [middle], epsilon=epsilon,
            ),
            helper.make_node("MatMul", [middle, f"{at}.ffn_up.weight"], [up]),
            fused("BiasGelu", [up, f"{at}.ffn_up.bias"], [active]),
            helper.make_node("MatMul", [active, f"{at}.ffn_down.weight"], [down]),
            fused(
                "SkipLayerNormalization", [down, middle, *norm(f"{at}.layer_output_norm"), f"{at}.ffn_down.bias"],
                [after], epsilon=epsilon,
            ),
        ]  # fmt: skip
        state = after
    graph = helper.make_graph(
        nodes, "bert",
        [
            helper.make_tensor_value_info(IDS, types.INT32, ["texts", "tokens"]),
            helper.make_tensor_value_info(LENGTHS, types.INT32, ["texts"]),
        ],
        [helper.make_tensor_value_info(STATES, types.FLOAT, ["texts", "tokens", header.dimensions])],
        [_outside(onnx, name, values) for name, values in weights.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=_IR_VERSION)


def _outside(onnx: Any, name: str, values: NDArray[np.float32]) -> Any:
    """A constant that the graph only names: a file of its own is never read, its values are given with the session."""
    constant = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=values.shape)
    constant.data_location = onnx.TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="given")
    return constant
