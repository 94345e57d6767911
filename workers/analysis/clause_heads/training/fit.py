"""Logistic regression of many heads at once, by L-BFGS."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_optimize: Any = importlib.import_module("scipy.optimize")
_sparse: Any = importlib.import_module("scipy.sparse")

# Common base of probabilities before anything is learnt.
_LEAST_SHARE: Final = 1e-5


def fit_heads(
    columns: Any, labels: NDArray[np.bool_], *, penalty: float, rounds: int, toward: Floats | None = None
) -> tuple[Floats, Floats]:
    """Weights (k, h) and biases (h) over ``columns`` (n, k), sparse or dense, for ``labels`` (n, h).

    ``penalty`` is that of the squares of what the weights are away from ``toward`` (k, h), or from nothing; ``rounds``
    the most steps.
    """
    wide, heads = columns.shape[1], labels.shape[1]
    targets = labels.astype(np.float32)
    over = columns.T.tocsr() if _sparse.issparse(columns) else np.ascontiguousarray(columns.T)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, bias = _parted(flat, wide, heads)
        logits: Floats = (columns @ weights + bias).astype(np.float32)
        rest = np.exp(-np.abs(logits))
        value = (np.maximum(logits, 0) - logits * targets + np.log1p(rest)).sum(dtype=np.float64)
        away = weights if toward is None else weights - toward
        value += 0.5 * penalty * float((away**2).sum(dtype=np.float64))
        error: Floats = np.where(logits >= 0, 1 / (1 + rest), rest / (1 + rest)) - targets
        slopes: Any = over @ error + penalty * away
        return float(value), np.concatenate([slopes.ravel(), error.sum(axis=0)]).astype(np.float64)

    share = np.clip(targets.mean(axis=0), _LEAST_SHARE, 0.5)
    begin = np.zeros(wide * heads) if toward is None else toward.ravel()
    start = np.concatenate([begin, np.log(share / (1 - share))])
    found = _optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": rounds, "maxcor": 8})
    return _parted(found.x, wide, heads)


def fit_one(
    columns: Floats, labels: NDArray[np.bool_], *, penalty: float, rounds: int = 400, toward: Floats | None = None
) -> Floats:
    """Weights (k + 1) of one head over few ``columns`` (n, k), the bias last; ``toward`` is (k)."""
    middle = None if toward is None else toward[:, None]
    weights, bias = fit_heads(columns, labels[:, None], penalty=penalty, rounds=rounds, toward=middle)
    return np.concatenate([weights[:, 0], bias])


def fit_alike(columns: Sequence[Floats], labels: Sequence[NDArray[np.bool_]], *, penalty: float) -> Floats:
    """Weights (h, k + 1), the bias last, of heads whose columns (n, k) mean the same, each with its own ``labels`` (n).

    Each is drawn to the weights of all heads fitted as one, so that a rare clause leans on what holds for the others.
    """
    together = np.concatenate(columns)
    spread = together.std(axis=0)
    spread[spread == 0] = 1
    common = fit_one(together / spread, np.concatenate(labels), penalty=1)[:-1]
    found = [
        fit_one(own / spread, answers, penalty=penalty, toward=common)
        for own, answers in zip(columns, labels, strict=True)
    ]
    return np.stack(found) / np.append(spread, 1).astype(np.float32)


def _parted(flat: NDArray[np.float64], wide: int, heads: int) -> tuple[Floats, Floats]:
    weights, bias = np.split(flat.astype(np.float32), [wide * heads])
    return weights.reshape(wide, heads), bias
