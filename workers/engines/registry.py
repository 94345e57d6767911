"""All engines of one worker process: loads each model once, when first asked for, after checks that cannot kill it."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import threading
from typing import Any, Final

import psutil

from services.durable_files import read_replaced, write_durably
from services.errors import InvalidRequest
from services.gguf_header import GgufHeader, read_header
from services.model_files import SHARED_MODE, exclusive
from services.models import FAKE, Catalog, Kind, Model, fake_model
from services.settings import Settings
from workers.engines.base import Cancelled, EmbeddingEngine, GenerationEngine, Tick, never, no_tick
from workers.engines.embeddings import LlamaEmbeddings
from workers.engines.fake import FakeEmbeddings, FakeGeneration
from workers.engines.llama import LlamaGeneration
from workers.engines.llama_api import native_llama
from workers.engines.loading import LoadedEngines
from workers.engines.plan import plan_context
from workers.engines.probe import probe

log = logging.getLogger("casemill.engine")

MAX_REMEMBERED: Final = 200


class Engines:
    """Engines by model name; safe from any thread. ``cores`` is how many CPU cores this process is pinned to."""

    def __init__(self, settings: Settings, catalog: Catalog, cores: int) -> None:
        self._settings = settings
        self._catalog = catalog
        self._cores = max(1, cores)
        self._closing = threading.Event()
        self._generation = LoadedEngines[GenerationEngine](self._load_generation)
        self._embedding = LoadedEngines[EmbeddingEngine](self._load_embedding)

    def generation(self, name: str, *, tick: Tick = no_tick, cancelled: Cancelled = never) -> GenerationEngine:
        """The engine that writes text with the model ``name``, which loads in the background where it is not loaded.

        While it loads, ``tick`` is called about once a second; it runs in the calling thread and may raise to stop the
        waiting. Raises ``NotFound`` ``model_unknown``, ``InvalidRequest`` ``model_kind``, ``ModelError``
        (``model_damaged``, ``memory_exceeded`` …), ``Transient``, or ``WorkCancelled`` where ``cancelled`` says so.
        """
        engine = self._generation.get(name, tick, cancelled)
        if isinstance(engine, LlamaGeneration) and engine.broken:
            self._generation.drop(name, engine)
            engine = self._generation.get(name, tick, cancelled)
        return engine

    def embedding(self, name: str, *, tick: Tick = no_tick, cancelled: Cancelled = never) -> EmbeddingEngine:
        """The engine that makes vectors with the model ``name``. As :meth:`generation`."""
        return self._embedding.get(name, tick, cancelled)

    def loaded(self) -> list[str]:
        """Names of the models that are loaded now."""
        return sorted({*self._generation.names(), *self._embedding.names()})

    def stalled(self) -> float:
        """Seconds since the last step of the engine that has stood still longest with work in flight; 0.0 if none has.

        A load counts from when it is overdue. Never waits for an engine, so that a watchdog may ask.
        """
        return max(self._generation.stalled_seconds(), self._embedding.stalled_seconds())

    def close(self) -> None:
        """Free all engines; requests in flight fail with ``Transient``, and so do those that wait for a load."""
        self._closing.set()
        self._generation.close()
        self._embedding.close()

    def _load_generation(self, name: str) -> GenerationEngine:
        settings = self._settings
        if settings.engine == FAKE:
            return FakeGeneration(self._fake(name, "generate"), context_tokens=settings.context_tokens)
        model, header, extra_buffers = self._checked(name, "generate")
        gpu = self._has_gpu()
        free = None if gpu else int(psutil.virtual_memory().available) - model.bytes
        plan = plan_context(
            header, model.bytes, tokens=settings.context_tokens, sequences=settings.sequences, cores=self._cores,
            gpu=gpu, free_bytes=free, gpu_layers=settings.gpu_layers,
        )  # fmt: skip
        log.info(
            "loading %s: %d sequences of %d tokens, cache up to %d bytes",
            name, plan.sequences, plan.tokens, plan.cache_bytes,
        )  # fmt: skip
        return LlamaGeneration(model, header, plan, threads=self._cores, extra_buffers=extra_buffers)

    def _load_embedding(self, name: str) -> EmbeddingEngine:
        if self._settings.engine == FAKE:
            return FakeEmbeddings(self._fake(name, "embed"))
        model, _, extra_buffers = self._checked(name, "embed")
        return LlamaEmbeddings(
            model, gpu_layers=self._settings.gpu_layers, threads=self._cores, gpu=self._has_gpu(),
            extra_buffers=extra_buffers,
        )  # fmt: skip

    def _fake(self, name: str, kind: Kind) -> Model | None:
        return fake_model(kind) if name == FAKE else self._of_kind(name, kind)

    def _of_kind(self, name: str, kind: Kind) -> Model:
        model = self._catalog.get(name)
        if model.kind != kind:
            raise InvalidRequest(
                f"{name} is a model to {model.kind}, not to {kind}. `casemill models list` shows the others.",
                code="model_kind",
            )
        return model

    def _has_gpu(self) -> bool:
        return self._settings.gpu_layers != 0 and bool(native_llama().llama_supports_gpu_offload())

    def _checked(self, name: str, kind: Kind) -> tuple[Model, GgufHeader, bool]:
        """The model after its header was read and a subprocess has loaded it, now or earlier; how to load it."""
        model = self._of_kind(name, kind)
        header = read_header(model.path)
        # A file that was touched is tried again, as is every file with another llama.cpp or another place to run.
        place = "gpu" if self._has_gpu() else "cpu"
        version = importlib.metadata.version("llama-cpp-python")
        stamp = model.path.stat()
        key = f"{model.sha256}:{stamp.st_size}:{stamp.st_mtime_ns}:{version}:{place}:{platform.node()}"
        file = self._catalog.folder / "probed.json"
        known = _remembered(read_replaced(file))
        if key not in known:
            extra_buffers = probe(model, gpu_layers=self._settings.gpu_layers, stopping=self._closing.is_set)
            with exclusive(self._catalog.folder / "probed.lock"):
                known = {**_remembered(read_replaced(file)), key: extra_buffers}
                rows = dict(list(known.items())[-MAX_REMEMBERED:])
                write_durably(file, json.dumps({"extra_buffers": rows}, indent=1).encode(), mode=SHARED_MODE)
        return model, header, known[key]


def _remembered(text: str | None) -> dict[str, bool]:
    """Models that have loaded, with how; a file that cannot be read only means that they are tried again."""
    try:
        found: Any = json.loads(text or "{}")
        return {str(key): bool(value) for key, value in found.get("extra_buffers", {}).items()}
    except (ValueError, AttributeError):
        return {}
