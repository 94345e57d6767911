"""Writes MiniLM's weights as the ONNX graph that onnxruntime runs fastest: its fused operators for transformers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

# Installed for benchmarks alone, so what is checked without them must not need it.
onnx: Final[Any] = importlib.import_module("onnx")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto
LAYERS, HEADS, WIDTH, EPSILON = 6, 12, 384, 1e-12
FUSED = "com.microsoft"


def write_minilm(weights: Path, target: Path) -> None:
    """Inputs ``ids`` (texts, tokens), ``lengths`` (texts), ``means`` (texts, 1, tokens); output ``pooled``.

    ``means`` holds 1 ÷ length where there is a token and 0 where there is none, so pooling is one product.
    """
    tensors: dict[str, NDArray[np.float32]] = load_file(weights)
    constants: dict[str, NDArray[np.float32]] = {}

    def constant(name: str, values: NDArray[np.float32]) -> str:
        constants[name] = np.ascontiguousarray(values, np.float32)
        return name

    def norm(part: str) -> list[str]:
        return [constant(f"{part}.{kind}", tensors[f"{part}.{kind}"]) for kind in ("weight", "bias")]

    def matrix(part: str) -> str:
        return constant(part, tensors[f"{part}.weight"].T)

    def bias(part: str) -> str:
        return constant(f"{part}.bias", tensors[f"{part}.bias"])

    tables = [
        constant(kind, tensors[f"embeddings.{kind}_embeddings.weight"]) for kind in ("word", "position", "token_type")
    ]
    nodes = [
        helper.make_node(
            "EmbedLayerNormalization", ["ids", "types", *tables, *norm("embeddings.LayerNorm")],
            ["state", "unused"], domain=FUSED, epsilon=EPSILON,
        )
    ]  # fmt: skip
    state = "state"
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        own = [f"{layer}.attention.self.{kind}" for kind in ("query", "key", "value")]
        joined = constant(f"{layer}.qkv", np.concatenate([tensors[f"{part}.weight"].T for part in own], axis=1))
        shift = constant(f"{layer}.qkv.bias", np.concatenate([tensors[f"{part}.bias"] for part in own]))
        attended, mixed, up, active, down = (
            f"{layer}/{step}" for step in ("attended", "mixed", "up", "active", "down")
        )
        middle, after = f"{layer}/middle", f"{layer}/after"
        out, wide, narrow = f"{layer}.attention.output", f"{layer}.intermediate.dense", f"{layer}.output"
        nodes += [
            helper.make_node("Attention", [state, joined, shift, "lengths"], [attended], domain=FUSED, num_heads=HEADS),
            helper.make_node("MatMul", [attended, matrix(f"{out}.dense")], [mixed]),
            helper.make_node(
                "SkipLayerNormalization", [mixed, state, *norm(f"{out}.LayerNorm"), bias(f"{out}.dense")], [middle],
                domain=FUSED, epsilon=EPSILON,
            ),
            helper.make_node("MatMul", [middle, matrix(wide)], [up]),
            helper.make_node("BiasGelu", [up, bias(wide)], [active], domain=FUSED),
            helper.make_node("MatMul", [active, matrix(f"{narrow}.dense")], [down]),
            helper.make_node(
                "SkipLayerNormalization", [down, middle, *norm(f"{narrow}.LayerNorm"), bias(f"{narrow}.dense")],
                [after], domain=FUSED, epsilon=EPSILON,
            ),
        ]  # fmt: skip
        state = after
    nodes.append(helper.make_node("MatMul", ["means", state], ["pooled"]))
    graph = helper.make_graph(
        nodes,
        "minilm",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["texts", "tokens"]),
            helper.make_tensor_value_info("types", TensorProto.INT32, ["texts", "tokens"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["texts"]),
            helper.make_tensor_value_info("means", TensorProto.FLOAT, ["texts", 1, "tokens"]),
        ],
        [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["texts", 1, WIDTH])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), target)
