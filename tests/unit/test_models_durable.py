"""Files of the catalog are synced before they take their names, and nothing stays behind where that fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import durable_files
from services.durable_files import read_replaced, write_durably
from services.errors import ModelError
from services.model_files import write_whole
from services.models import Catalog
from tests.tiny_model import write_tiny_model


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Syncs and renames in their order."""
    events: list[str] = []
    sync, rename = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        events.append("sync")

    def replace(self: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    return events


def test_the_catalog_is_synced_before_it_is_replaced(tmp_path: Path, events: list[str]) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    events.clear()
    Catalog(tmp_path / "models").add(model, name="tiny")
    expected = ["sync", "rename to catalog.json", "sync"]
    assert events == (expected if hasattr(os, "O_DIRECTORY") else expected[:2])
    assert Catalog(tmp_path / "models").get("tiny")
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"catalog.json", "catalog.lock"}


def test_a_wrong_sum_or_a_failing_source_keeps_the_old_file(tmp_path: Path, events: list[str]) -> None:
    target = tmp_path / "weights"
    target.write_bytes(b"old")

    def failing() -> Iterator[bytes]:
        yield b"new"
        raise ConnectionError

    with pytest.raises(ModelError) as caught:
        write_whole(target, iter([b"new"]), "0" * 64)
    assert caught.value.code == "model_checksum_mismatch"
    with pytest.raises(ConnectionError):
        write_whole(target, failing())
    assert not [event for event in events if event.startswith("rename")]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("weights", b"old")]


def test_a_reader_in_the_way_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = [2]
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if refused[0]:
            refused[0] -= 1
            raise PermissionError
        return rename(self, target)

    monkeypatch.setattr(durable_files, "_MEETINGS", 3)
    monkeypatch.setattr(Path, "replace", replace)
    write_durably(tmp_path / "file", b"text")
    assert read_replaced(tmp_path / "file") == "text"
    assert read_replaced(tmp_path / "other") is None
    refused[0] = 3
    with pytest.raises(PermissionError):
        write_durably(tmp_path / "file", b"more")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_state_is_its_owners_and_models_are_as_the_umask_says(tmp_path: Path) -> None:
    write_durably(tmp_path / "secret", b"")
    write_whole(tmp_path / "weights", iter([b""]))
    (tmp_path / "plain").touch()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes["secret"] == 0o600
    assert modes["weights"] == modes["plain"]
