"""Tasks keep their lease while a model loads and while texts are measured, and leave when they are told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.jobs import Claim, Lane, Priority
from services.models import Catalog
from services.settings import Settings
from services.texts import DocumentText, Page, Paragraph
from tests.conftest import wait_until
from workers.engines import loading
from workers.engines.fake import FakeEmbeddings, FakeGeneration
from workers.engines.registry import Engines
from workers.execution import Execution, Stopped
from workers.tasks import segments, terms
from workers.tasks.generate import embed, generate
from workers.toolbox import Toolbox

TEXT = "This clause is long enough to be embedded. " * 2
DOCUMENT = DocumentText(
    "txt",
    TEXT * 50,
    (Page(1, 0, len(TEXT) * 50),),
    tuple(Paragraph(at * len(TEXT), (at + 1) * len(TEXT) - 1) for at in range(50)),
)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Models load once this is set."""
    gate = threading.Event()

    def held(engine: Callable[[], Any]) -> Callable[[Engines, str], Any]:
        return lambda _self, _name: (gate.wait(60), engine())[1]

    monkeypatch.setattr(loading, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(Engines, "_load_generation", held(FakeGeneration))
    monkeypatch.setattr(Engines, "_load_embedding", held(FakeEmbeddings))
    yield gate
    gate.set()


@pytest.fixture
def execution() -> Execution:
    claim = Claim("t", "j", 1, "x", Lane.GENERATE, Priority.NORMAL, {}, "model", None, None, {}, None)
    return Execution(claim, cast(Any, None), lambda: False)


@pytest.mark.parametrize("task", [generate, embed, segments.embed_segments, terms.extract_terms])
def test_a_task_ticks_while_its_model_loads_and_stops_when_told(
    task: Callable[[Toolbox, Execution], Any], gate: threading.Event, execution: Execution, tmp_path: Path
) -> None:
    engines = Engines(Settings(data_dir=tmp_path, engine="fake"), Catalog(tmp_path), 1)
    toolbox: Any = SimpleNamespace(engines=engines, input=lambda _claim: {}, text=lambda _claim: DOCUMENT)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(task, toolbox, execution)
        for _ in range(3):
            wait_until(execution.moved, what="a tick")
        assert not asked.done()
        execution.stop("cancel")
        with pytest.raises(Stopped):
            asked.result(30)
    assert not gate.is_set(), "it left while the model was still loading"
    gate.set()
    engines.close()


def test_measuring_segments_ticks_for_each_and_stops_when_told(execution: Execution) -> None:
    engine = FakeEmbeddings()
    checks: list[int] = []
    assert len(segments.segments(DOCUMENT, engine, lambda: checks.append(1))) == len(checks) == 100
    execution.stop("cancel")
    with pytest.raises(Stopped):
        segments.segments(DOCUMENT, engine, execution.check)
