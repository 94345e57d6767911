"""Planned memory beside llama.cpp's own figures and beside what a process takes: within a tenth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest

from services.gguf_header import read_header
from services.models import Catalog
from tests.benchmarks.memory import plan, real_use
from tests.shaped_model import GEMMA_4B, LLAMA_8B, ModelShape, write_shaped_model
from tests.tiny_model import write_tiny_model
from workers.engines.demo_weights import GEMMA, MINILM
from workers.engines.dry_run import dry_run
from workers.engines.memory import Shape, cache_bytes, compute_bytes
from workers.engines.plan import Budget, Wish, embedding_shape, plan_embedding

TENTH = 0.1


@pytest.mark.parametrize("model", [LLAMA_8B, GEMMA_4B], ids=["llama", "gemma3"])
@pytest.mark.parametrize(
    "shape",
    [
        Shape(65536, 16, 512, 16),
        Shape(32768, 16, 512, 16, "q8_0", unified=True),
        Shape(16384, 64, 64, 64, searched=True),
    ],
    ids=["split", "shared", "searched"],
)
def test_the_header_tells_what_llama_cpp_reserves(tmp_path: Path, model: ModelShape, shape: Shape) -> None:
    path = write_shaped_model(tmp_path / "model.gguf", model)
    header, told = read_header(path), dry_run(path, shape)
    assert told
    assert cache_bytes(header, shape) == pytest.approx(told.cache, abs=2**15), "the log has two decimals"
    both = cache_bytes(header, shape) + compute_bytes(header, shape)
    assert both == pytest.approx(told.cache + told.host_compute, rel=TENTH)
    assert compute_bytes(header, shape) == pytest.approx(told.host_compute, rel=TENTH)
    kept = 4 if shape.searched else 1
    assert told.outputs == pytest.approx(kept * shape.outputs * model.vocabulary * 4, abs=2**15)


@pytest.mark.parametrize(("architecture", "cached"), [("llama", True), ("qwen2", True), ("dream", False)])
def test_an_embedding_model_has_a_cache_where_llama_cpp_gives_it_one(
    tmp_path: Path, architecture: str, cached: bool
) -> None:
    path = write_tiny_model(
        tmp_path / "pooled.gguf", layers=8, width=256, architecture=architecture, pooling=gguf.PoolingType.LAST
    )
    header = read_header(path)
    assert header.kind == "embed"
    planned = plan_embedding(header, Wish(tokens=0, sequences=0), Budget(host=2**34))
    told = dry_run(path, embedding_shape(planned))
    assert told
    assert planned.cache_bytes == told.cache
    assert bool(told.cache) == cached


def test_a_model_that_llama_cpp_refuses_has_no_dry_run(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "bad.gguf")
    path.write_bytes(path.read_bytes().replace(b"blk.1.ffn_norm.weight", b"blk.1.ffn_xxxx.weight"))
    assert dry_run(path, Shape(512, 1, 64, 1)) is None


@pytest.fixture(scope="module")
def gemma(gemma_catalog: Catalog) -> Path:
    return gemma_catalog.get(GEMMA).path


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        (16, 4096, "f16", False, 0),
        (16, 4096, "q8_0", False, 0),
        (16, 4096, "f16", True, 0),
        (1, 32768, "f16", False, 0),
    ],
    ids=["f16", "q8_0", "shared", "long"],
)
def test_a_process_takes_what_was_planned(gemma: Path, shape: tuple[int, int, Any, bool, int]) -> None:
    planned = plan(read_header(gemma), shape, gpu=False)
    assert planned.unified == shape[3]
    assert planned.total_bytes == pytest.approx(real_use(gemma, planned), rel=TENTH)


@pytest.mark.slow
def test_an_encoder_takes_what_was_planned(gemma_catalog: Catalog) -> None:
    path = gemma_catalog.get(MINILM).path
    planned = plan_embedding(read_header(path), Wish(tokens=0, sequences=0, gpu_layers=0, cores=2), Budget())
    assert planned.library == "onnxruntime"
    assert planned.total_bytes == pytest.approx(real_use(path, planned), rel=TENTH)


def casemill(*arguments: str, models: Path) -> tuple[int, str]:
    """Exit status and what was printed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CASEMILL_")}
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", *arguments],
        capture_output=True, text=True, check=False, env=own | {"CASEMILL_MODELS_DIR": str(models)},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_command_plans_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    path = write_shaped_model(tmp_path / "model.gguf", LLAMA_8B)
    status, shown = casemill("models", "plan", str(path), "--vram=8GiB", models=tmp_path)
    rows = dict(line.split("\t") for line in shown.strip().splitlines())
    assert status == 0
    assert (rows["layers on the GPU"], rows["sequences"], rows["KV type"]) == ("33 of 33", "8", "q8_0")
    assert (rows["KV"], rows["margin"], rows["of VRAM"]) == ("2.12", "1.00", "8.00")
    assert float(rows["weights"]) + float(rows["KV"]) + float(rows["compute"]) + 1 < 8
    status, shown = casemill("--json", "models", "plan", str(path), "--vram=8GiB", models=tmp_path)
    told = json.loads(shown)
    assert (told["device"], told["source"], told["tokens"]) == ("gpu", "llama.cpp", 4096)
    assert told["cache_bytes"] == 8 * 4096 * 64 * 1024 * 34 // 32
    status, shown = casemill("models", "plan", str(path), "--ram=2GB", models=tmp_path)
    assert status == 1
    assert "The model needs at least" in shown
    assert "memory_exceeded" in shown
