"""All engines of one worker process: loads each model once, when first asked for, after checks that cannot kill it.

Models share the memory; one that is idle makes room for another (`residents`), so work holds its engine by a lease.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final, TypeVar

from services.durable_files import read_replaced, write_durably
from services.errors import InvalidRequest
from services.file_locks import exclusive
from services.fleet import EngineView
from services.gguf_header import GgufHeader, read_header
from services.model_files import SHARED_MODE
from services.models import FAKE, Catalog, Kind, Model, fake_model
from services.settings import Settings
from workers.engines.base import Cancelled, EmbeddingEngine, GenerationEngine, Tick, never, no_tick
from workers.engines.budget import budget_of
from workers.engines.dry_run import measured_plan
from workers.engines.embeddings import GgufEmbeddings
from workers.engines.fake import FakeEmbeddings, FakeGeneration
from workers.engines.llama import LlamaGeneration
from workers.engines.llama_api import native_llama
from workers.engines.loading import LoadedEngines
from workers.engines.plan import Budget, ContextPlan, Wish, plan_context, plan_embedding
from workers.engines.probe import probe
from workers.engines.residents import Choose, Key, Residents

log = logging.getLogger("casemill.engine")

MAX_REMEMBERED: Final = 200
# Where a plan leaves less than this part of itself free, it is checked by a dry run.
TIGHT: Final = 0.1
_E = TypeVar("_E")


class Engines:
    """Engines by model name; safe from any thread. ``cores`` is how many CPU cores this process is pinned to."""

    def __init__(self, settings: Settings, catalog: Catalog, cores: int) -> None:
        self._settings = settings
        self._catalog = catalog
        self._cores = max(1, cores)
        self._closing = threading.Event()
        self._residents = Residents(self._drop, self._closing.is_set)
        self._generation = LoadedEngines[GenerationEngine](self._settling("generate", self._load_generation))
        self._embedding = LoadedEngines[EmbeddingEngine](self._settling("embed", self._load_embedding))

    def generation(self, name: str, *, tick: Tick = no_tick, cancelled: Cancelled = never) -> GenerationEngine:
        """The engine that writes text with the model ``name``, which loads in the background where it is not loaded.

        It may be closed for another model's sake at any time; work holds it by :meth:`lease_generation`. While it
        loads, ``tick`` is called about once a second; it runs in the calling thread and may raise to stop the waiting.
        Raises ``NotFound`` ``model_unknown``, ``InvalidRequest`` ``model_kind``, ``ModelError`` (``model_damaged``,
        ``memory_exceeded`` …), ``Transient``, or ``WorkCancelled`` where ``cancelled`` says so.
        """
        engine = self._generation.get(name, tick, cancelled)
        if isinstance(engine, LlamaGeneration) and engine.broken:
            self._generation.drop(name, engine)
            engine = self._generation.get(name, tick, cancelled)
        return engine

    def embedding(self, name: str, *, tick: Tick = no_tick, cancelled: Cancelled = never) -> EmbeddingEngine:
        """The engine that makes vectors with the model ``name``. As :meth:`generation`."""
        return self._embedding.get(name, tick, cancelled)

    def lease_generation(
        self, name: str, *, tick: Tick = no_tick, cancelled: Cancelled = never
    ) -> AbstractContextManager[GenerationEngine]:
        """As :meth:`generation`, for as long as a ``with`` block needs it: till then it is not closed for another.

        Raises also ``ModelError`` ``memory_exceeded`` where the model does not fit even alone, and ``Transient``
        ``memory_busy`` where all others stay in use.
        """
        key: Key = ("generate", name)
        return self._residents.lease(
            key, lambda: self.generation(name, tick=tick, cancelled=cancelled), tick, cancelled
        )

    def lease_embedding(
        self, name: str, *, tick: Tick = no_tick, cancelled: Cancelled = never
    ) -> AbstractContextManager[EmbeddingEngine]:
        """As :meth:`lease_generation`, for vectors."""
        key: Key = ("embed", name)
        return self._residents.lease(key, lambda: self.embedding(name, tick=tick, cancelled=cancelled), tick, cancelled)

    def forget(self) -> None:
        """Keep nothing of prompts that have ended, after an erasure."""
        for _, engine, _ in self._generation.load_times():
            engine.forget()

    def loaded(self) -> list[str]:
        """Names of the models that are loaded now."""
        return sorted({*self._generation.names(), *self._embedding.names()})

    def views(self) -> tuple[EngineView, ...]:
        """What the engines with weights have done since they were loaded. Never waits for an engine."""
        loaded = [*self._generation.load_times(), *self._embedding.load_times()]
        return tuple(
            engine.meter.view(name, seconds)
            for name, engine, seconds in loaded
            if isinstance(engine, (LlamaGeneration, GgufEmbeddings))
        )

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
        model, header = self._described(name, "generate")
        wish = Wish(
            tokens=settings.context_tokens, sequences=settings.sequences, gpu_layers=settings.gpu_layers, shared=True,
            kv_type=None if settings.kv_type == "auto" else settings.kv_type, cores=self._cores,
        )  # fmt: skip
        key: Key = ("generate", name)
        plan = self._residents.admit(key, self._choose(lambda budget: plan_context(header, wish, budget)))
        if plan.spare_bytes < plan.total_bytes * TIGHT:
            # The header's figures are good to a few parts in a hundred; here that decides, so llama.cpp is asked.
            told = measured_plan(model.path, header, plan) or plan
            excess, gpu = told.total_bytes - plan.total_bytes, plan.gpu_layers != 0
            if excess > plan.spare_bytes:
                plan = self._residents.admit(
                    key, self._choose(lambda budget: plan_context(header, wish, budget.less(excess, gpu=gpu)))
                )
        log.info("loading %s: %s", name, plan)
        extra_buffers = self._tried(model, plan.gpu_layers)
        return LlamaGeneration(model, header, plan, threads=self._cores, extra_buffers=extra_buffers)

    def _load_embedding(self, name: str) -> EmbeddingEngine:
        settings = self._settings
        if settings.engine == FAKE:
            return FakeEmbeddings(self._fake(name, "embed"))
        model, header = self._described(name, "embed")
        wish = Wish(tokens=0, sequences=0, gpu_layers=settings.gpu_layers, cores=self._cores)
        plan = self._residents.admit(("embed", name), self._choose(lambda budget: plan_embedding(header, wish, budget)))
        log.info("loading %s: %s", name, plan)
        extra_buffers = self._tried(model, plan.gpu_layers)
        return GgufEmbeddings(model, header, plan, threads=self._cores, extra_buffers=extra_buffers)

    def _choose(self, plan: Callable[[Budget], ContextPlan]) -> Choose:
        """The plan for what is free and ``freed`` bytes more."""
        gpu = self._has_gpu()

        def choose(freed: int) -> ContextPlan:
            residents = self._residents
            budget = budget_of(self._settings, gpu=gpu, held=residents.held_bytes, loading=residents.loading_bytes)
            if gpu:
                return plan(replace(budget, gpu=budget.gpu + freed))
            return plan(replace(budget, host=(budget.host or 0) + freed))

        return choose

    def _settling(self, kind: Kind, load: Callable[[str], _E]) -> Callable[[str], _E]:
        """``load``, whose outcome is noted among the residents."""

        def settle(name: str) -> _E:
            try:
                engine = load(name)
            except BaseException:
                self._residents.forget((kind, name))
                raise
            self._residents.loaded((kind, name), engine)
            return engine

        return settle

    def _drop(self, key: Key, engine: object) -> bool:
        kind, name = key
        return self._generation.drop(name, engine) if kind == "generate" else self._embedding.drop(name, engine)

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

    def _described(self, name: str, kind: Kind) -> tuple[Model, GgufHeader]:
        model = self._of_kind(name, kind)
        return model, read_header(model.path)

    def _tried(self, model: Model, gpu_layers: int) -> bool:
        """Whether to use extra CPU buffers, after a subprocess has loaded the model, now or earlier."""
        # A file that was touched is tried again, as is every file with another llama.cpp or another place to run.
        place = "gpu" if self._has_gpu() else "cpu"
        version = importlib.metadata.version("llama-cpp-python")
        stamp = model.path.stat()
        key = f"{model.sha256}:{stamp.st_size}:{stamp.st_mtime_ns}:{version}:{place}:{platform.node()}"
        file = self._catalog.folder / "probed.json"
        known = _remembered(read_replaced(file))
        if key not in known:
            extra_buffers = probe(model, gpu_layers=gpu_layers, stopping=self._closing.is_set)
            with exclusive(self._catalog.folder / "probed.lock"):
                known = {**_remembered(read_replaced(file)), key: extra_buffers}
                rows = dict(list(known.items())[-MAX_REMEMBERED:])
                write_durably(file, json.dumps({"extra_buffers": rows}, indent=1).encode(), mode=SHARED_MODE)
        return known[key]


def _remembered(text: str | None) -> dict[str, bool]:
    """Models that have loaded, with how; a file that cannot be read only means that they are tried again."""
    try:
        found: Any = json.loads(text or "{}")
        return {str(key): bool(value) for key, value in found.get("extra_buffers", {}).items()}
    except (ValueError, AttributeError):
        return {}
