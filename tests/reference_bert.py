"""A BERT's forward pass in numpy, from its original weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file


class Reference:
    """BERT's forward pass, a vector a token; one text at a time, float32."""

    def __init__(self, folder: Path) -> None:
        """The model in ``folder``: ``model.safetensors`` and ``config.json``."""
        self.weights: dict[str, NDArray[np.float32]] = load_file(folder / "model.safetensors")
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))

    def erf(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Abramowitz and Stegun 7.1.26, to 1.5e-7."""
        t = 1 / (1 + 0.3275911 * np.abs(values))
        series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
        return (np.sign(values) * (1 - series * np.exp(-(values**2)))).astype(np.float32)

    def linear(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        centred = values - values.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + self.config["layer_norm_eps"])
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def __call__(self, ids: list[int]) -> NDArray[np.float32]:
        tables = [self.weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")]
        state = self.norm("embeddings.LayerNorm", tables[0][ids] + tables[1][: len(ids)] + tables[2][0])
        heads = self.config["num_attention_heads"]
        for layer in range(self.config["num_hidden_layers"]):
            at = f"encoder.layer.{layer}"
            query, key, value = (
                self.linear(f"{at}.attention.self.{part}", state).reshape(len(ids), heads, -1).transpose(1, 0, 2)
                for part in ("query", "key", "value")
            )
            scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[2])
            scores = np.exp(scores - scores.max(axis=2, keepdims=True))
            mixed = (scores / scores.sum(axis=2, keepdims=True)) @ value
            mixed = self.linear(f"{at}.attention.output.dense", mixed.transpose(1, 0, 2).reshape(len(ids), -1))
            state = self.norm(f"{at}.attention.output.LayerNorm", state + mixed)
            inner = self.linear(f"{at}.intermediate.dense", state)
            inner = inner * 0.5 * (1 + self.erf(inner / math.sqrt(2)))
            state = self.norm(f"{at}.output.LayerNorm", state + self.linear(f"{at}.output.dense", inner))
        return state


def mean(states: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector of a text whose tokens are these."""
    return states.mean(axis=0) / np.linalg.norm(states.mean(axis=0))
