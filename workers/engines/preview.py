"""What `casemill models plan` shows: how a model would be loaded, by its header and llama.cpp's dry run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from services.errors import ModelError
from services.gguf_header import GgufHeader, read_header
from services.models import Catalog
from services.settings import Settings
from workers.engines.memory import layers_of
from workers.engines.plan import MARGIN_BYTES, Budget, ContextPlan, Wish, plan_context, plan_embedding

# How often a plan is made anew because llama.cpp needs more than the header let expect.
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a model by name or path, and bytes of memory; without any, this machine's are taken."""

    model: str
    wish: Wish
    gpu: int | None = None
    host: int | None = None


def preview(question: Question, settings: Settings) -> dict[str, Any]:
    """The plan as JSON has it. Raises ``ModelError`` (``memory_exceeded``, ``model_missing`` …), ``NotFound``."""
    named = Path(question.model).expanduser()
    path = named if named.is_file() else Catalog(settings.models_folder).get(question.model).path
    header = read_header(path)
    budget = _budget(question, settings)
    plan, source = _corrected(path, header, question.wish, budget)
    on_gpu = plan.gpu_layers != 0
    return {
        **asdict(plan),
        "model": question.model,
        "architecture": header.architecture,
        "for": header.kind,
        "device": "gpu" if on_gpu else "cpu",
        "layers": layers_of(header),
        "gpu_layers": layers_of(header) if plan.gpu_layers < 0 else plan.gpu_layers,
        "total_bytes": plan.total_bytes,
        "budget_bytes": budget.gpu if on_gpu else budget.host,
        "source": source,
    }


def _budget(question: Question, settings: Settings) -> Budget:
    if question.gpu is None and question.host is None:
        return _this_machine(settings)
    host = question.host
    if host is None:
        host = int(psutil.virtual_memory().total)
    return Budget(question.gpu or 0, host, MARGIN_BYTES, MARGIN_BYTES)


def _this_machine(settings: Settings) -> Budget:
    """What is free here now; without llama.cpp, main memory."""
    try:
        from workers.engines.budget import budget_of
        from workers.engines.llama_api import native_llama

        gpu = settings.gpu_layers != 0 and bool(native_llama().llama_supports_gpu_offload())
    except (ImportError, ModelError):
        return Budget(host=int(psutil.virtual_memory().available), host_margin=MARGIN_BYTES)
    return budget_of(settings, gpu=gpu, held=0, loading=0)


def _corrected(path: Path, header: GgufHeader, wish: Wish, budget: Budget) -> tuple[ContextPlan, str]:
    """The plan with llama.cpp's own figures where it is installed; made anew for less where those do not fit."""
    try:
        from workers.engines.dry_run import measured_plan
    except ImportError:
        return _plan(header, wish, budget), "header"
    tight = budget
    for _ in range(_TRIES):
        plan = _plan(header, wish, tight)
        if plan.library != "llama.cpp":
            return plan, "header"
        measured = measured_plan(path, header, plan)
        if measured is None:
            return plan, "header"
        gpu = plan.gpu_layers != 0
        excess = measured.total_bytes - plan.total_bytes
        kept_back = budget.gpu - tight.gpu if gpu else (budget.host or 0) - (tight.host or 0)
        if excess <= plan.spare_bytes + kept_back:
            return measured, "llama.cpp"
        tight = tight.less(excess, gpu=gpu)
    raise ModelError("llama.cpp needs more memory than there is for every way to load it.", code="memory_exceeded")


def _plan(header: GgufHeader, wish: Wish, budget: Budget) -> ContextPlan:
    if header.kind == "embed":
        return plan_embedding(header, wish, budget)
    return plan_context(header, wish, budget)
