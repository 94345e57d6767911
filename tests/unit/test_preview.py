"""`casemill models plan`: sizes as people write them, and plans corrected by what llama.cpp says."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from gateway.cli.model_plan import Size
from services.errors import ModelError
from services.gguf_header import read_header
from services.settings import Settings
from tests.shaped_model import LLAMA_8B, write_shaped_model
from workers.engines import dry_run as dry_run_module
from workers.engines.dry_run import Reserved
from workers.engines.memory import LIBRARY_BYTES, Shape, cache_bytes
from workers.engines.plan import Wish
from workers.engines.preview import Question, preview

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * GIB), ("24G", 24 * GIB), ("1.5 gib", 3 * GIB // 2), ("500MB", 500_000_000), ("10 KB", 10_000),
        ("12", 12), ("1TiB", 1024 * GIB), ("7B", 7),
    ],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["8X", "", "GiB", "-1GiB", "8GiB more", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Size().convert(text, None, None)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_shaped_model(tmp_path / "llama.gguf", LLAMA_8B)


def ask(path: Path, gib: float) -> dict[str, object]:
    return preview(
        Question(str(path), Wish(4096, 16), gpu=int(gib * GIB), host=64 * GIB), Settings(data_dir=path.parent)
    )


def answer(monkeypatch: pytest.MonkeyPatch, path: Path, *, more: int) -> None:
    """Let the dry run tell the cache of the header and a compute buffer of ``more`` bytes."""
    header = read_header(path)

    def told(_: Path, shape: Shape) -> Reserved:
        return Reserved(cache_bytes(header, shape), more, 0, 0)

    monkeypatch.setattr(dry_run_module, "dry_run", told)


def test_the_figures_are_llama_cpps_where_it_answers(monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    answer(monkeypatch, llama, more=GIB // 4)
    found = ask(llama, 24)
    assert (found["compute_bytes"], found["source"]) == (GIB // 4 + LIBRARY_BYTES, "llama.cpp")
    assert found["sequences"] == 16


def test_a_plan_is_made_anew_where_llama_cpp_needs_more(monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    answer(monkeypatch, llama, more=0)
    assert ask(llama, 9.6)["sequences"] == 16
    answer(monkeypatch, llama, more=2 * GIB)
    found = ask(llama, 9.6)
    assert found["sequences"] == 8
    assert int(str(found["total_bytes"])) <= 8.6 * GIB


def test_the_header_alone_will_do(monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    monkeypatch.setattr(dry_run_module, "dry_run", lambda _path, _shape: None)
    assert ask(llama, 24)["source"] == "header"


def test_what_llama_cpp_can_never_fit_is_said(monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    answer(monkeypatch, llama, more=100 * GIB)
    with pytest.raises(ModelError) as caught:
        preview(Question(str(llama), Wish(4096, 1), gpu=24 * GIB, host=GIB), Settings(data_dir=llama.parent))
    assert caught.value.code == "memory_exceeded"
