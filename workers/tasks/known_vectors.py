"""Vectors that other documents of the tenant hold already: texts of step ``embed`` that need not be computed again."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.blobs import Blobs
from services.errors import NotFound
from services.vector_index import VectorIndex
from workers.engines.base import Tick

# Blobs read for one document, those that hold most of it: reading one takes about as long as computing a text.
MAX_BLOBS: Final = 16
KEY_CHARS: Final = 32


def text_keys(blobs: Blobs, tenant: str, model_sha256: str, texts: Sequence[str]) -> list[str]:
    """Each text under its model, in hexadecimal; nobody without the tenant's key can tell which text it was."""
    return [
        blobs.keyed(tenant, f"vector:{model_sha256}:{text}".encode("utf-8", "surrogatepass"))[:KEY_CHARS]
        for text in texts
    ]


def known_vectors(
    blobs: Blobs, index: VectorIndex, tenant: str, keys: Sequence[str], check: Tick
) -> dict[str, NDArray[np.float32]]:
    """Vectors by key, of those that a blob still holds; ``check`` is called before each blob that is read."""
    places = Counter(blob for blob in index.find(tenant, keys) if blob)
    wanted, known = set(keys), dict[str, NDArray[np.float32]]()
    for blob, _ in places.most_common(MAX_BLOBS):
        check()
        held = _held(blobs, tenant, blob)
        known.update({key: vector for key, vector in held.items() if key in wanted})
    return known


def _held(blobs: Blobs, tenant: str, blob: str) -> dict[str, NDArray[np.float32]]:
    """What a blob of step ``embed`` holds, by key; nothing where it is gone or damaged."""
    try:
        with np.load(io.BytesIO(blobs.get(tenant, blob)), allow_pickle=False) as arrays:
            return dict(zip(arrays["keys"].tolist(), arrays["vectors"], strict=True))
    except (NotFound, ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile):
        return {}
