"""An encoder on the CPU by onnxruntime: twice as fast there as llama.cpp, with the same vectors."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.errors import ModelError, Transient
from services.gguf_header import GgufHeader
from workers.engines.bert_graph import IDS, LENGTHS, STATES, bert_graph, read_weights

# Texts that are computed as one are at least this share of its longest: what is filled up is computed in vain.
_SIMILAR: Final = 0.8


def session_of(path: Path, header: GgufHeader, *, threads: int) -> Any:
    """An ``onnxruntime.InferenceSession`` with the graph and the weights of the model.

    Raises ``ModelError`` ``model_unusable`` where the library refuses them.
    """
    library: Any = importlib.import_module("onnxruntime")
    # Otherwise builds for Windows tell the system's telemetry about sessions.
    library.disable_telemetry_events()
    options: Any = library.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # It would keep a plan of the memory for each shape of a batch, of which there are thousands.
    options.enable_mem_pattern = False
    weights = read_weights(path, header)
    values = [library.OrtValue.ortvalue_from_numpy(each) for each in weights.values()]
    options.add_external_initializers(list(weights), values)
    graph = bert_graph(header, weights).SerializeToString()
    try:
        return library.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"onnxruntime cannot load {path.name}: {error}", code="model_unusable") from error


class OnnxEncoder:
    """See :class:`workers.engines.embeddings.Encoder`; each thread that computes uses one core."""

    means = True

    def __init__(self, path: Path, header: GgufHeader) -> None:
        """Read the weights of a model that :func:`workers.engines.bert.onnxruntime_takes`. Raises ``ModelError``."""
        self._session: Any = session_of(path, header, threads=1)
        self._width = header.dimensions

    def compute(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """See :meth:`workers.engines.embeddings.Encoder.compute`. Safe from any thread."""
        starts = np.cumsum([0, *map(len, texts)]).tolist()
        vectors = np.empty((starts[-1], self._width), np.float32)
        for members in _alike([len(ids) for ids in texts]):
            lengths = np.array([len(texts[index]) for index in members], np.int32)
            ids = np.zeros((len(members), int(lengths[0])), np.int32)
            for row, index in enumerate(members):
                ids[row, : lengths[row]] = texts[index]
            try:
                (states,) = self._session.run([STATES], {IDS: ids, LENGTHS: lengths})
            except Exception as error:  # its message may hold what was computed
                raise Transient(
                    f"onnxruntime failed on these texts ({type(error).__name__}).", code="engine_failed"
                ) from None
            for row, index in enumerate(members):
                vectors[starts[index] : starts[index + 1]] = states[row, : lengths[row]]
        return vectors

    def close(self) -> None:
        """Free the weights."""
        self._session = None


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Places of texts of similar lengths together, the longest of each group first."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if not groups or lengths[place] < _SIMILAR * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(place)
    return groups
