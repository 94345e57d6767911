"""What models take of memory beside what was planned: `make bench NAME=memory`.

The demo model, or the GGUF file given as argument, is loaded by several plans, each in a process of its own that
computes a few batches. Without a GPU the resident memory that the load added counts; with one, what `nvidia-smi` says
is used more than before the load, the driver's own part of a process left out.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from services.gguf_header import GgufHeader, read_header
from services.models import Catalog, Model
from workers.engines.batch import Batch
from workers.engines.demo_weights import GEMMA, install_demo_models
from workers.engines.dry_run import measured_plan
from workers.engines.embeddings import GgufEmbeddings
from workers.engines.llama_api import LlamaModel, free_gpu_memory, native_llama
from workers.engines.llama_context import LlamaContext
from workers.engines.plan import Budget, ContextPlan, Wish, plan_context

ROOMY = 2**50
# Sequences, tokens of each, what the cache holds, whether it is shared, layers on the GPU where there is one.
SHAPES = (
    (16, 4096, "f16", False, -1),
    (16, 4096, "q8_0", False, -1),
    (16, 4096, "f16", True, -1),
    (4, 16384, "q8_0", True, -1),
    (1, 32768, "f16", False, -1),
    (64, 1024, "f16", False, -1),
    (16, 4096, "f16", False, 8),
)


def main() -> int:
    """Print a line for each shape and one JSON line."""
    if sys.argv[1:2] == ["--load"]:
        print(json.dumps(load(Path(sys.argv[2]), ContextPlan(**json.loads(sys.argv[3])))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else demo_model(Path(folder))
        header = read_header(path)
        errors: dict[str, list[float]] = {"header": [], "plan": []}
        print(f"{'shape':44s} {'header':>9s} {'plan':>9s} {'real':>9s}  error, MiB")
        on_gpu = bool(free_gpu_memory())
        for shape in SHAPES if on_gpu else [shape for shape in SHAPES if shape[4] < 0]:
            estimated = plan(header, shape, gpu=on_gpu)
            told = measured_plan(path, header, estimated) or estimated
            real = real_use(path, told)
            for name, found in (("header", estimated), ("plan", told)):
                errors[name].append(found.total_bytes / real - 1)
            figures = "".join(f"{each / 2**20:10.0f}" for each in (estimated.total_bytes, told.total_bytes, real))
            print(f"{described(shape):44s}{figures}  {errors['plan'][-1]:+.1%}", flush=True)
    worst = {name: round(max(map(abs, found)), 4) for name, found in errors.items()}
    print(json.dumps({"worst_error": worst["plan"], "worst_error_of_header": worst["header"], "gpu": on_gpu}))
    return 0


def described(shape: tuple[int, int, str, bool, int]) -> str:
    """One shape in words."""
    sequences, tokens, kind, shared, layers = shape
    where = "" if layers < 0 else f", {layers} layers on the GPU"
    return f"{sequences} × {tokens} {kind}, {'shared' if shared else 'split'}{where}"


def demo_model(folder: Path) -> Path:
    """The file of the demo model."""
    install_demo_models(Catalog(folder))
    return Catalog(folder).get(GEMMA).path


def plan(header: GgufHeader, shape: tuple[int, int, Any, bool, int], *, gpu: bool) -> ContextPlan:
    """The plan of a shape in memory without end, with half of the cells where the cache is shared."""
    sequences, tokens, kind, shared, layers = shape
    wish = Wish(tokens, sequences, kv_type=kind, gpu_layers=layers)
    whole = plan_context(header, wish, Budget(ROOMY if gpu else 0, ROOMY))
    if not shared:
        return whole
    # The planner shares only where it must: a budget between what a split and a shared cache take makes it.
    tight = whole.total_bytes - whole.cache_bytes // 4
    budget = Budget(tight, ROOMY) if gpu else Budget(0, tight)
    return plan_context(header, replace(wish, shared=True), budget)


def real_use(path: Path, plan: ContextPlan) -> int:
    """Bytes that a process took to load and use the model by ``plan``."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", "--load", str(path), json.dumps(asdict(plan))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return int(json.loads(done.stdout.strip().splitlines()[-1]))


def load(path: Path, plan: ContextPlan) -> int:
    """Load the model, compute a full batch of prompts and a step of all sequences; bytes taken for it."""
    native_llama()
    if plan.library == "onnxruntime":
        return load_encoder(path)
    on_gpu = bool(free_gpu_memory()) and plan.gpu_layers != 0  # asking starts the driver, whose part is not counted
    before = used(gpu=on_gpu)
    model = LlamaModel(path, gpu_layers=plan.gpu_layers, extra_buffers=False)
    shape = plan.shape
    context = LlamaContext(
        model, tokens=plan.cells, batch=plan.batch, micro_batch=shape.micro_batch, sequences=plan.sequences, threads=2,
        unified=plan.unified, kv_type=plan.kv_type, flash_attn=True if plan.kv_type == "q8_0" else None,
        search=shape.searched,
    )  # fmt: skip
    batch = Batch(max(plan.batch, plan.sequences))
    length = shape.micro_batch // plan.sequences
    for start, count in ((0, length), (length, 1)):
        batch.clear()
        for sequence in range(plan.sequences):
            batch.add([sequence % 100 + 300] * count, start, sequence, output=True)
        assert context.decode(batch) == 0
        _ = context.likeliest(plan.sequences) if context.searching else context.logits(plan.sequences)
    taken = used(gpu=on_gpu) - before
    context.close()
    model.close()
    return taken


def load_encoder(path: Path) -> int:
    """Load an embedding model as a worker of two cores does and compute texts of all lengths; bytes taken for it."""
    header = read_header(path)
    model = Model("", "embed", path, "", 0, "", "", header.context_tokens, header.dimensions, "", "")
    before = used(gpu=False)
    engine = GgufEmbeddings.on_cpu(model, threads=2)
    chance = random.Random(1)
    longest = engine.limit - 2  # without the tokens that stand around every text
    for _ in range(12):
        lengths = [longest] * 2 + [chance.randint(1, longest) for _ in range(8)]
        engine.embed([[chance.randrange(1000, 20_000) for _ in range(length)] for length in lengths])
    taken = used(gpu=False) - before
    engine.close()
    return taken


def used(*, gpu: bool) -> int:
    """Bytes in use: of the GPUs that `nvidia-smi` shows, or this process's in main memory."""
    if not gpu:
        return psutil.Process().memory_info().rss
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    return sum(int(line) for line in answer.split()) * 2**20


if __name__ == "__main__":
    sys.exit(main())
