"""Folders of backups: an erasure waits for none that hangs, knows one that is away, and forgets none by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.main import casemill
from services import backup_places
from services.backup_places import BackupPlaces
from services.erasure_log import ErasureLog
from tests.conftest import wait_until


class Hanging:
    """A share that is away, as a hard mount of NFS is: who writes to it gets no answer until it is back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.back = threading.Event()
        self.asked, self.gave_up = 0, False

    def log(self, folder: Path) -> ErasureLog:
        share = self

        class Waiting(ErasureLog):
            def add(self, at: float, tenant: str, subjects: Iterable[str]) -> None:
                share.asked += 1
                share.gave_up = not share.back.wait(10) or share.gave_up
                super().add(at, tenant, subjects)

        return Waiting(folder) if folder == self.folder else ErasureLog(folder)


@pytest.fixture
def places(tmp_path: Path) -> BackupPlaces:
    return BackupPlaces(tmp_path)


def made(places: BackupPlaces, folder: Path, *documents: str) -> Path:
    """A folder of backups that is noted, with keys of these documents."""
    (folder / "snapshots").mkdir(parents=True)
    (folder / "keys" / "acme").mkdir(parents=True)
    for document in documents:
        (folder / "keys" / "acme" / document).write_bytes(b"key")
    places.note(folder)
    return folder


def keys(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("keys/acme/*"))


@pytest.fixture
def share(places: BackupPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    hanging = Hanging(made(places, tmp_path / "share", "doc_1", "doc_2"))
    monkeypatch.setattr(backup_places, "ErasureLog", hanging.log)
    monkeypatch.setattr(backup_places, "REACH_SECONDS", 0.1, raising=False)
    yield hanging
    hanging.back.set()


def test_nobody_waits_for_a_share_that_hangs(
    places: BackupPlaces, share: Hanging, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = made(places, tmp_path / "disk", "doc_1", "doc_2")
    for document in ("doc_1", "doc_2"):
        places.erase(1.0, "acme", [document], [document])
    assert not share.gave_up
    assert keys(disk) == [], "the others are reached"
    assert str(share.folder) in caplog.text
    assert share.asked == 1, "as long as it does not answer it is not asked again"
    share.back.set()
    for thread in threading.enumerate():
        if thread.name == backup_places.THREAD:
            thread.join(10)
    assert keys(share.folder) == ["doc_2"]
    places.erase(2.0, "acme", ["doc_2"], ["doc_2"])
    assert keys(share.folder) == []


def test_erasures_at_the_same_time_all_reach_a_folder(
    places: BackupPlaces, share: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_places, "REACH_SECONDS", 10)
    first = threading.Thread(target=places.erase, args=(1.0, "acme", ["doc_1"], ["doc_1"]))
    first.start()
    wait_until(lambda: share.asked == 1, 10)
    second = threading.Thread(target=places.erase, args=(1.0, "acme", ["doc_2"], ["doc_2"]))
    second.start()
    wait_until(lambda: share.asked == 2 or not second.is_alive(), 10)
    share.back.set()
    for thread in (first, second):
        thread.join(10)
    assert keys(share.folder) == []


def test_disks_that_are_there_in_turn_are_both_remembered(places: BackupPlaces, tmp_path: Path) -> None:
    first = made(places, tmp_path / "first", "doc_1")
    first.rename(tmp_path / "put away")
    second = made(places, tmp_path / "second", "doc_1")
    (tmp_path / "put away").rename(first)
    places.erase(1.0, "acme", ["doc_1"], ["doc_1"])
    assert keys(first) == keys(second) == []


def test_a_mount_point_without_its_disk_is_not_reached(
    places: BackupPlaces, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = made(places, tmp_path / "disk", "doc_1")
    disk.rename(tmp_path / "put away")
    disk.mkdir()
    places.erase(1.0, "acme", ["doc_1"], ["doc_1"])
    assert str(disk) in caplog.text
    assert not list(disk.iterdir())


def test_a_folder_is_forgotten_when_somebody_says_so(places: BackupPlaces, tmp_path: Path) -> None:
    sold, kept = (made(places, tmp_path / name, "doc_1") for name in ("sold", "kept"))
    runner = CliRunner(env={"CASEMILL_DATA_DIR": str(tmp_path), "REDIS_URL": ""})
    done = runner.invoke(casemill, ["backup", str(sold), "--forget"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    places.erase(1.0, "acme", ["doc_1"], ["doc_1"])
    assert (keys(sold), keys(kept)) == (["doc_1"], [])
    again = runner.invoke(casemill, ["backup", str(sold), "--forget"], catch_exceptions=False)
    assert again.exit_code
    assert "backup_unknown" in again.output
