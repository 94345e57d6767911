"""Several models in a small budget: side by side, evicted when idle, never under a running request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.errors import ModelError
from services.gguf_header import GgufHeader, read_header
from services.models import Catalog
from services.settings import Settings
from tests.tiny_model import CONTEXT, write_tiny_model
from workers.engines import registry, residents
from workers.engines.base import Sampling
from workers.engines.llama import LlamaGeneration
from workers.engines.plan import Budget, ContextPlan, Wish, plan_context
from workers.engines.registry import Engines

NAMES = ("one", "two", "three")
SEQUENCES = 4


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("models")
    catalog = Catalog(folder)
    for seed, name in enumerate(NAMES):
        catalog.add(write_tiny_model(folder / f"{name}.gguf", seed=seed), name=name)
    return catalog


@pytest.fixture(scope="module")
def whole(catalog: Catalog) -> ContextPlan:
    """How each of the models is loaded where there is room; they are of one size."""
    header = read_header(catalog.get("one").path)
    return plan_context(header, Wish(CONTEXT, SEQUENCES, cores=1), Budget())


@pytest.fixture
def settings(catalog: Catalog, whole: ContextPlan) -> Settings:
    """Room for two and a half of the three."""
    room = whole.total_bytes * 5 // 2
    return Settings(
        data_dir=catalog.folder, context_tokens=CONTEXT, sequences=SEQUENCES, gpu_layers=0, memory_bytes=room,
        kv_type="f16",
    )  # fmt: skip


@pytest.fixture
def engines(settings: Settings, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engines]:
    monkeypatch.setattr(residents, "GRACE_SECONDS", 0.0)
    engines = Engines(settings, catalog, 1)
    yield engines
    engines.close()


def ask(engines: Engines, name: str, tokens: int = 8) -> str:
    with engines.lease_generation(name) as engine:
        return engine.generate("alpha beta", Sampling(max_tokens=tokens)).text


def test_the_least_recently_used_of_three_leaves(engines: Engines) -> None:
    texts = {name: ask(engines, name) for name in ("one", "two")}
    assert engines.loaded() == ["one", "two"], "side by side"
    assert ask(engines, "one") == texts["one"]
    texts["three"] = ask(engines, "three")
    assert engines.loaded() == ["one", "three"]
    assert ask(engines, "two") == texts["two"]
    assert engines.loaded() == ["three", "two"]
    assert len(set(texts.values())) == 3


def test_a_running_request_is_never_cut_off(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    close = LlamaGeneration.close
    monkeypatch.setattr(LlamaGeneration, "close", lambda self: (closed.append(self.model.name), close(self))[1])
    started, gate = threading.Event(), threading.Event()

    def hold(name: str) -> str:
        def on_text(_: str) -> None:
            started.set()
            assert gate.wait(60)

        with engines.lease_generation(name) as engine:
            return engine.generate("gamma", Sampling(max_tokens=40), on_text=on_text).text

    alone = ask_text(engines, "one")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(hold, "one")
        assert started.wait(30)
        for name in ("two", "three", "two", "three"):
            ask(engines, name)
        assert "one" not in closed
        assert closed.count("two") + closed.count("three") == 3
        gate.set()
        assert running.result(60) == alone


def ask_text(engines: Engines, name: str) -> str:
    with engines.lease_generation(name) as engine:
        return engine.generate("gamma", Sampling(max_tokens=40)).text


def test_what_does_not_fit_even_alone_fails_alone(
    settings: Settings, catalog: Catalog, whole: ContextPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "GRACE_SECONDS", 0.0)
    large = write_tiny_model(catalog.folder / "large.gguf", seed=9, layers=24)
    catalog.add(large, name="large")
    tight = settings.model_copy(update={"memory_bytes": whole.total_bytes * 5 // 4})
    engines = Engines(tight, catalog, 1)
    try:
        assert ask(engines, "one")
        with pytest.raises(ModelError) as caught:
            ask(engines, "large")
        assert caught.value.code == "memory_exceeded"
        assert engines.loaded() == ["one"]
        assert ask(engines, "one")
    finally:
        engines.close()
        catalog.remove("large")


def test_a_model_that_fails_to_load_gives_its_room_back(engines: Engines, catalog: Catalog) -> None:
    path = write_tiny_model(catalog.folder / "bad.gguf", seed=5)
    data = path.read_bytes().replace(b"blk.1.ffn_norm.weight", b"blk.1.ffn_xxxx.weight")
    path.write_bytes(data)
    catalog.add(path, name="bad")
    try:
        held: Any = engines._residents
        assert ask(engines, "one")
        before = held.held_bytes
        with pytest.raises(ModelError) as caught:
            ask(engines, "bad")
        assert caught.value.code == "model_damaged"
        assert held.held_bytes == before
        assert ask(engines, "two")
        assert engines.loaded() == ["one", "two"]
    finally:
        catalog.remove("bad")


def test_many_callers_over_three_models_all_get_their_text(engines: Engines) -> None:
    expected = {name: ask(engines, name) for name in NAMES}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda number: ask(engines, NAMES[number % 3]), range(18)))
    assert found == [expected[NAMES[number % 3]] for number in range(18)]


def test_a_tight_plan_is_checked_with_llama_cpp(
    settings: Settings, catalog: Catalog, whole: ContextPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says here that a sixteenth more is needed than the header let expect, so sequences share a cache."""
    asked: list[int] = []

    def told(_path: Path, _header: GgufHeader, plan: ContextPlan) -> ContextPlan:
        asked.append(plan.sequences)
        return replace(plan, compute_bytes=plan.compute_bytes + whole.total_bytes // 16)

    monkeypatch.setattr(registry, "measured_plan", told)
    for room, split in ((whole.total_bytes * 2, True), (whole.total_bytes * 21 // 20, False)):
        engines = Engines(settings.model_copy(update={"memory_bytes": room}), catalog, 1)
        try:
            engine = engines.generation("one")
            assert isinstance(engine, LlamaGeneration)
            cells = engine.meter.view("", 0.0).gauges["cells"]
            assert (cells == whole.cells) is split
        finally:
            engines.close()
    assert asked == [4], "only where it is tight"
