"""The search for the likeliest tokens inside llama.cpp's graph finds what a sort of all logits finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from services.errors import Transient
from services.models import Catalog
from services.settings import Settings
from workers.engines import llama, loop
from workers.engines.base import Sampling
from workers.engines.batch import Batch
from workers.engines.demo_weights import GEMMA
from workers.engines.graph_top_k import KEPT, block_width, searchable
from workers.engines.llama import LlamaGeneration
from workers.engines.llama_api import LlamaModel
from workers.engines.llama_context import LlamaContext
from workers.engines.registry import Engines

TEXTS = ["The Supplier shall", "This Agreement is governed by the laws of", "Neither party", "Payment is due within 30"]
DRAWN = Sampling(max_tokens=12, temperature=0.9, top_k=40, top_p=0.95, min_p=0.01)


@pytest.fixture(scope="module")
def model(gemma_catalog: Catalog) -> Iterator[LlamaModel]:
    model = LlamaModel(gemma_catalog.get(GEMMA).path, gpu_layers=0)
    yield model
    model.close()


def computed(context: LlamaContext, prompts: dict[int, list[int]]) -> int:
    """Compute the prompts by their sequences, each with an output at its end."""
    context.clear()
    batch = Batch(128)
    for sequence, tokens in prompts.items():
        batch.add(tokens, 0, sequence, output=True)
    assert context.decode(batch) == 0
    return len(prompts)


def test_the_graph_finds_what_a_sort_finds(model: LlamaModel) -> None:
    context = LlamaContext(model, tokens=5 * 256, batch=128, micro_batch=128, sequences=5, threads=2, search=True)
    assert context.searching
    tokens = [model.tokenize(text, special=False, start=True) for text in TEXTS]
    # Sequences come and go, in any place.
    for sequences in ([0, 1, 2, 3], [1, 4], [3], [0, 2, 4]):
        prompts = dict(zip(sequences, tokens, strict=False))
        context.search(True)
        found = [part.copy() for part in context.likeliest(computed(context, prompts))]
        context.search(False)
        assert not context.searching
        logits = context.logits(computed(context, prompts)).copy()
        expected = np.argsort(-logits, axis=1, kind="stable")[:, :KEPT]
        assert np.array_equal(found[1], expected)
        assert np.array_equal(found[0], np.take_along_axis(logits, expected, axis=1))
    context.close()


def test_samplers_that_were_taken_away_are_freed(model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    context = LlamaContext(model, tokens=3 * 256, batch=128, micro_batch=128, sequences=3, threads=2, search=True)
    assert context._top_k is not None
    for _ in range(3):
        assert len(context._top_k._chains) == 3
        context.search(False)
        assert not context._top_k._chains
        computed(context, {0: [5, 6, 7]})
        context.search(True)
        computed(context, {0: [5, 6, 7]})
        assert context.likeliest(1)[0].shape == (1, KEPT)
    context.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_fails_in_the_graph_is_told(model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    context = LlamaContext(model, tokens=2 * 256, batch=128, micro_batch=128, sequences=2, threads=2, search=True)
    # llama.cpp goes on after what is raised there.
    monkeypatch.setattr(context._top_k, "_ggml", None)
    computed(context, {1: [5, 6, 7]})
    with pytest.raises(Transient, match="likeliest"):
        context.likeliest(1)
    context.close()


def engine_of(gemma_catalog: Catalog, settings: Settings) -> LlamaGeneration:
    engine = Engines(settings, gemma_catalog, 2).generation(GEMMA)
    assert isinstance(engine, LlamaGeneration)
    return engine


@pytest.fixture(scope="module")
def engines(gemma_catalog: Catalog) -> Iterator[tuple[LlamaGeneration, LlamaGeneration]]:
    """One that searches in the graph, as on a GPU, and one that does not."""
    settings = Settings(data_dir=gemma_catalog.folder, context_tokens=256, sequences=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama, "LlamaContext", lambda *args, **plan: LlamaContext(*args, **(plan | {"search": True})))
        searching = engine_of(gemma_catalog, settings)
    plain = engine_of(gemma_catalog, settings)
    assert searching._context.searching
    yield searching, plain
    searching.close()
    plain.close()


@pytest.mark.parametrize("sampling", [Sampling(max_tokens=12), DRAWN], ids=["greedy", "drawn"])
def test_the_engine_writes_the_same_text(engines: tuple[LlamaGeneration, LlamaGeneration], sampling: Sampling) -> None:
    for text in TEXTS[:2]:
        found = [engine.generate(text, replace(sampling, seed=5)).text for engine in engines]
        assert found[0] == found[1] != ""


def test_who_needs_all_logits_gets_them_beside_the_others(
    engines: tuple[LlamaGeneration, LlamaGeneration], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = engines
    wanted: list[bool] = []
    search = LlamaContext.search

    def watched(self: LlamaContext, on: bool) -> None:
        wanted.append(on)
        search(self, on)

    monkeypatch.setattr(LlamaContext, "search", watched)
    schema = {"type": "object", "properties": {"law": {"enum": ["Ohio", "Delaware"]}}, "required": ["law"],
              "additionalProperties": False}  # fmt: skip
    cases = [Sampling(max_tokens=60, json_schema=schema), Sampling(max_tokens=40), Sampling(max_tokens=3, logprobs=2)]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(partial(engine.generate, TEXTS[1]), cases))
    assert json.loads(results[0].text)["law"] in {"Ohio", "Delaware"}
    assert results[1].tokens_out == 40
    assert results[2].logprobs is not None
    assert len(results[2].logprobs) == 3
    assert set(wanted) == {False}
    assert not engine._context.searching
    monkeypatch.setattr(loop, "SEARCHABLE_STEPS", 3)
    engine.generate(TEXTS[1], Sampling(max_tokens=8))
    assert engine._context.searching, "after some steps of which all can be chosen by it, it is on again"


@pytest.mark.parametrize("vocabulary", [262_144, 151_936, 128_256, 152_064, 49_152, 32_000, 32_768, 102_400, 1_000, 64])
def test_vocabularies_of_models_in_use_are_searched(vocabulary: int) -> None:
    assert searchable(vocabulary)


@pytest.mark.parametrize("vocabulary", [63, 50_257, 100_003])
def test_what_no_block_divides_is_left_to_the_host(vocabulary: int) -> None:
    assert not searchable(vocabulary)
    assert block_width(vocabulary) == 0
