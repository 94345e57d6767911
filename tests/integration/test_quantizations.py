"""The quantisations that people download load and write: Q4_K_M, Q5_K_M, Q8_0 and F16, up to the model's context."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.errors import InvalidRequest
from services.gguf_header import read_header
from services.models import Catalog
from services.settings import Settings
from tests.tiny_model import CONTEXT, write_tiny_model
from workers.engines.base import Sampling
from workers.engines.demo_weights import GEMMA
from workers.engines.llama import LlamaGeneration
from workers.engines.llama_api import native_llama
from workers.engines.registry import Engines

# llama.cpp's numbers of file types, which a file states as `general.file_type`.
KINDS = {"F16": 1, "Q8_0": 7, "Q5_K_M": 17, "Q4_K_M": 15}


def quantize(source: Path, target: Path, kind: str) -> Path:
    """Write ``source`` as ``kind`` to ``target``, by llama.cpp's own quantiser."""
    native_llama()
    library: Any = importlib.import_module("llama_cpp.llama_cpp")
    params = library.llama_model_quantize_default_params()
    params.ftype = KINDS[kind]
    params.allow_requantize = True
    params.nthread = 2
    assert library.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0
    return target


@contextmanager
def engine_of(path: Path, **changes: Any) -> Generator[LlamaGeneration]:
    """An engine on the file alone."""
    catalog = Catalog(path.parent / f"catalog of {path.stem}")
    catalog.folder.mkdir()
    catalog.add(path, name="model")
    engines = Engines(Settings(data_dir=catalog.folder, gpu_layers=0, **changes), catalog, 2)
    try:
        engine = engines.generation("model")
        assert isinstance(engine, LlamaGeneration)
        yield engine
    finally:
        engines.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows are long enough for blocks of 256 values."""
    return write_tiny_model(tmp_path_factory.mktemp("wide") / "whole.gguf", width=256)


@pytest.mark.parametrize("kind", KINDS)
def test_each_loads_and_writes_up_to_the_context(whole: Path, tmp_path: Path, kind: str) -> None:
    path = quantize(whole, tmp_path / f"{kind}.gguf", kind)
    header = read_header(path)
    assert header.metadata["general.file_type"] == KINDS[kind]
    assert header.tensor_bytes < read_header(whole).tensor_bytes * 0.6
    with engine_of(path, context_tokens=10**6, sequences=2) as engine:
        assert engine.context_tokens == CONTEXT, "the model's limit"
        room = CONTEXT - engine.count_tokens("alpha beta")
        result = engine.generate("alpha beta", Sampling(max_tokens=room, temperature=0.9, seed=1))
        assert result.tokens_in + result.tokens_out == CONTEXT or result.finish_reason == "stop"
        with pytest.raises(InvalidRequest) as caught:
            engine.generate("alpha beta", Sampling(max_tokens=room + 1))
        assert caught.value.code == "context_exceeded"


def test_they_differ_in_size_as_their_names_say(whole: Path, tmp_path: Path) -> None:
    sizes = [quantize(whole, tmp_path / f"{kind}.gguf", kind).stat().st_size for kind in KINDS]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(KINDS)


@pytest.fixture(scope="module")
def gemma(gemma_catalog: Catalog) -> Path:
    return gemma_catalog.get(GEMMA).path


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_real_weights_count_on_in_each(gemma: Path, tmp_path: Path, kind: str) -> None:
    path = gemma if kind == "Q4_K_M" else quantize(gemma, tmp_path / f"{kind}.gguf", kind)
    with engine_of(path, context_tokens=10**6, sequences=1) as engine:
        assert engine.context_tokens == read_header(gemma).context_tokens == 32_768
        counted = engine.generate("one, two, three, four, five, six, seven,", Sampling(max_tokens=4)).text
        assert counted.startswith(" eight, nine")
