"""Logistic regression of many heads at once, by L-BFGS, over sparse and dense columns with a penalty each."""

from __future__ import annotations

import importlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_optimize: Any = importlib.import_module("scipy.optimize")
_sparse: Any = importlib.import_module("scipy.sparse")

# Common base of probabilities before anything is learnt.
_LEAST_SHARE: Final = 1e-5


def fit_heads(
    words: Any, vectors: Floats, labels: NDArray[np.bool_], *, lexical: float, dense: float, rounds: int
) -> tuple[Floats, Floats, Floats]:
    """Weights of sparse ``words`` (n, v), of ``vectors`` (n, d), and biases, for ``labels`` (n, h).

    ``lexical`` and ``dense`` are the penalties of their squares, ``rounds`` the most steps.
    """
    wide, deep, heads = words.shape[1], vectors.shape[1], labels.shape[1]
    targets = labels.astype(np.float32)
    words_over, vectors_over = words.T.tocsr(), np.ascontiguousarray(vectors.T)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w, u, b = _parted(flat, wide, deep, heads)
        logits: Floats = words @ w + vectors @ u + b
        rest = np.exp(-np.abs(logits))
        value = (np.maximum(logits, 0) - logits * targets + np.log1p(rest)).sum(dtype=np.float64)
        value += 0.5 * lexical * float((w**2).sum(dtype=np.float64))
        value += 0.5 * dense * float((u**2).sum(dtype=np.float64))
        error: Floats = np.where(logits >= 0, 1 / (1 + rest), rest / (1 + rest)) - targets
        of_words: Floats = words_over @ error + lexical * w
        of_vectors = vectors_over @ error + dense * u
        slopes = [of_words.ravel(), of_vectors.ravel(), error.sum(axis=0)]
        return float(value), np.concatenate(slopes).astype(np.float64)

    share = np.clip(targets.mean(axis=0), _LEAST_SHARE, 0.5)
    start = np.concatenate([np.zeros((wide + deep) * heads), np.log(share / (1 - share))])
    found = _optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": rounds, "maxcor": 8})
    return _parted(found.x, wide, deep, heads)


def fit_one(columns: Floats, labels: NDArray[np.bool_], *, penalty: float, rounds: int = 400) -> Floats:
    """Weights (k + 1) of one head over few ``columns`` (n, k), the bias last."""
    empty = _sparse.csr_matrix((len(columns), 0), dtype=np.float32)
    _, weights, bias = fit_heads(empty, columns, labels[:, None], lexical=0.0, dense=penalty, rounds=rounds)
    return np.concatenate([weights[:, 0], bias])


def _parted(flat: NDArray[np.float64], wide: int, deep: int, heads: int) -> tuple[Floats, Floats, Floats]:
    parts = np.split(flat.astype(np.float32), [wide * heads, (wide + deep) * heads])
    return parts[0].reshape(wide, heads), parts[1].reshape(deep, heads), parts[2]
