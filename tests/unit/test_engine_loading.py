"""Loads run in the background: they block nobody else, waiters tick and can leave, and what hangs is named."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from services.errors import ModelError, Transient
from services.models import Catalog, fake_model
from services.settings import Settings
from tests.conftest import wait_until
from workers.engines import loading, registry
from workers.engines import probe as probe_module
from workers.engines.base import WorkCancelled
from workers.engines.fake import FakeGeneration
from workers.engines.registry import Engines


class Loads:
    """Stands for the weights: loads the models in ``held`` only once ``gate`` opens, and counts."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.held = {"slow"}
        self.begun: list[str] = []
        self.closed: list[str] = []
        self.problem: Exception | None = None

    def load(self, name: str) -> FakeGeneration:
        self.begun.append(name)
        if name in self.held:
            assert self.gate.wait(60)
            if self.problem is not None:
                raise self.problem
        engine = FakeGeneration()
        engine.close = lambda: self.closed.append(name)
        return engine


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loads]:
    loads = Loads()
    monkeypatch.setattr(loading, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(Engines, "_load_generation", lambda _self, name: loads.load(name))
    yield loads
    loads.gate.set()


@pytest.fixture
def engines(loads: Loads, tmp_path: Path) -> Iterator[Engines]:
    engines = Engines(Settings(data_dir=tmp_path, engine="fake"), Catalog(tmp_path), 1)
    yield engines
    loads.gate.set()
    engines.close()


def test_who_waits_for_a_load_ticks_and_one_load_serves_all(engines: Engines, loads: Loads) -> None:
    ticks: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(engines.generation, "slow", tick=lambda n=n: ticks.append(n)) for n in range(4)]
        wait_until(lambda: all(ticks.count(n) >= 3 for n in range(4)), what="ticks of all that wait")
        assert not any(future.done() for future in asked)
        loads.gate.set()
        assert len({id(future.result(30)) for future in asked}) == 1
    assert loads.begun == ["slow"]
    assert engines.loaded() == ["slow"]


def test_a_load_blocks_neither_loaded_models_nor_other_loads(engines: Engines, loads: Loads) -> None:
    quick = engines.generation("quick")
    with ThreadPoolExecutor(3) as pool:
        slow = pool.submit(engines.generation, "slow")
        wait_until(lambda: "slow" in loads.begun)
        assert pool.submit(engines.generation, "quick").result(10) is quick
        assert pool.submit(engines.generation, "other").result(10).model == fake_model("generate")
        assert (pool.submit(engines.loaded).result(10), pool.submit(engines.stalled).result(10)) == (
            ["other", "quick"], 0.0,
        )  # fmt: skip
        assert not slow.done()
        loads.gate.set()
        slow.result(30)


def test_who_is_cancelled_leaves_and_the_load_goes_on(engines: Engines, loads: Loads) -> None:
    with pytest.raises(WorkCancelled):
        engines.generation("slow", cancelled=lambda: True)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        engines.generation("slow", tick=stop)
    loads.gate.set()
    wait_until(lambda: engines.loaded() == ["slow"], what="the load")
    assert engines.generation("slow", cancelled=lambda: True), "what is loaded needs no waiting"
    assert loads.begun == ["slow"]


def test_a_failed_load_is_told_to_all_and_tried_again_by_the_next(engines: Engines, loads: Loads) -> None:
    loads.problem = ModelError("broken", code="model_damaged")
    ticks: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(engines.generation, "slow", tick=lambda n=n: ticks.append(n)) for n in range(2)]
        wait_until(lambda: set(ticks) == {0, 1}, what="two that wait")
        loads.gate.set()
        assert [type(future.exception(30)) for future in asked] == [ModelError, ModelError]
    loads.problem = None
    assert engines.generation("slow")
    assert loads.begun == ["slow", "slow"]


def test_closing_during_a_load_closes_what_it_brings(engines: Engines, loads: Loads) -> None:
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(engines.generation, "slow")
        wait_until(lambda: loads.begun)
        closing = pool.submit(engines.close)
        wait_until(engines._closing.is_set)
        loads.gate.set()
        with pytest.raises(Transient) as caught:
            asked.result(30)
        closing.result(30)
    assert caught.value.code == "engine_closed"
    assert (loads.closed, engines.loaded()) == (["slow"], [])
    with pytest.raises(Transient):
        engines.generation("quick")


def test_a_load_that_hangs_is_given_up_and_counts_as_stalled(
    engines: Engines, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "LOAD_SECONDS", 0.05)
    ticks: list[int] = []
    with pytest.raises(Transient) as caught:
        engines.generation("slow", tick=lambda: ticks.append(1))
    assert caught.value.code == "model_load_timeout"
    wait_until(lambda: engines.stalled() > 0.1, what="the stall")
    loads.gate.set()
    wait_until(lambda: engines.stalled() == 0.0 and engines.loaded() == ["slow"], what="the late end")


def test_the_longest_stall_counts(engines: Engines) -> None:
    one, two = engines.generation("one"), engines.generation("two")
    assert isinstance(one, FakeGeneration)
    assert isinstance(two, FakeGeneration)
    assert engines.stalled() == 0.0
    one.stalled_seconds, two.stalled_seconds = 3.0, 5.0
    assert engines.stalled() == 5.0


def test_a_broken_engine_is_replaced(engines: Engines, loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    first: Any = engines.generation("quick")
    monkeypatch.setattr(registry, "LlamaGeneration", FakeGeneration)
    first.broken = True
    real: Callable[[str], FakeGeneration] = loads.load

    def load(name: str) -> FakeGeneration:
        engine: Any = real(name)
        engine.broken = False
        return engine

    monkeypatch.setattr(loads, "load", load)
    assert engines.generation("quick") is not first
    assert (loads.closed, loads.begun) == (["quick"], ["quick", "quick"])


@pytest.mark.parametrize(
    ("seconds", "stopping", "code"), [(60.0, True, "engine_closed"), (0.3, False, "model_load_timeout")]
)
def test_a_test_load_ends_with_its_time_or_the_worker(
    monkeypatch: pytest.MonkeyPatch, seconds: float, stopping: bool, code: str
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real: Any = subprocess.Popen

    def hang(_command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = real([sys.executable, "-c", "import time; time.sleep(600)"], **options)
        started.append(process)
        return process

    monkeypatch.setattr(probe_module.subprocess, "Popen", hang)
    with pytest.raises(Transient) as caught:
        probe_module.probe(fake_model("generate"), gpu_layers=0, seconds=seconds, stopping=lambda: stopping)
    assert caught.value.code == code
    assert [process.returncode is not None for process in started] == [True], "no test load is left running"
