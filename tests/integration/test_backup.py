"""Backups of a real server: whole or not there, restored as they were, and without what was erased since."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.main import casemill
from gateway.stack.valkey import EmbeddedValkey
from services import backup_folder
from services.access import Access
from services.audit_archive import AuditArchive
from services.backup import take_backup
from services.backup_folder import BackupFolder, mirror
from services.blobs import Blobs
from services.data_keys import Erased
from services.errors import NotFound, Unauthorized, Unavailable
from services.jobs import State
from services.seals import Seals
from services.settings import Settings
from tests.integration.test_erasure import CASE, CONTRACT, FILE_NAME, NEEDLE, TELLING, Office, holding


class Machine:
    """A data folder with a server of its own, as `casemill up` has it, and a folder for backups."""

    def __init__(self, root: Path, *, sealed: bool) -> None:
        self.root = root
        self.folder = BackupFolder(root / "backups")
        self.data_dir = root / "data"
        settings = Settings.model_validate({"data_dir": self.data_dir})
        if sealed:
            assert Seals.make_master_key(settings)
        self.server = EmbeddedValkey(self.data_dir / "valkey")
        self.office = Office(settings.model_copy(update={"redis_url": self.server.start()}))

    def casemill(self, data_dir: Path, *arguments: str, **environment: str) -> Result:
        """A verb against a data folder."""
        env = {"CASEMILL_DATA_DIR": str(data_dir), "REDIS_URL": ""} | environment
        return CliRunner(env=env).invoke(casemill, arguments, catch_exceptions=False)

    def backup(self, *more: str) -> dict[str, Any]:
        done = self.casemill(self.data_dir, "--json", "backup", str(self.folder.root), *more)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.splitlines()[-1])

    def restore(self, name: str, *more: str) -> Path:
        """A new data folder with the newest backup, or the one named, under the same master key."""
        data_dir = self.root / name
        if (self.root / "data.keys").exists():
            shutil.copytree(self.root / "data.keys", self.root / f"{name}.keys")
        done = self.casemill(data_dir, "restore", str(self.folder.root), *more)
        assert done.exit_code == 0, done.output
        return data_dir

    def stop(self) -> None:
        self.office.lifecycle.client.close()
        self.server.stop()


@pytest.fixture(params=["sealed", "plain"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path, sealed=request.param == "sealed")
    yield machine
    machine.stop()


class Restored:
    """A restored folder with its server running."""

    def __init__(self, data_dir: Path) -> None:
        self.server = EmbeddedValkey(data_dir / "valkey")
        self.office = Office(Settings.model_validate({"data_dir": data_dir, "REDIS_URL": self.server.start()}))

    def __enter__(self) -> Office:
        return self.office

    def __exit__(self, *_: object) -> None:
        self.office.lifecycle.client.close()
        self.server.stop()


def test_a_restored_installation_goes_on_where_it_was(machine: Machine) -> None:
    office = machine.office
    document = office.upload(matter="m-1")
    job = office.submit(document, "m-1", metadata={"client": NEEDLE})
    assert machine.backup() | {"backup": ""} == {
        "backup": "",
        "blobs": 1,
        "copied": 1,
        "erased": 0,
        "forgotten": 0,
        "sealed": office.sealed,
        "queue": True,
    }
    assert not (machine.data_dir / "valkey" / "dump.rdb").exists()
    office.lifecycle.cancel("acme", job.id)
    data_dir = machine.restore("restored")
    with Restored(data_dir) as restored:
        assert restored.documents.get("acme", document).name == FILE_NAME
        assert restored.blobs.get("acme", document) == CONTRACT.encode()
        record = restored.lifecycle.get("acme", job.id)
        assert (record.state, record.metadata) == (State.WAITING, {"client": NEEDLE})
        assert restored.upload(matter="m-1") == document, "names of blobs are the same"
    refused = machine.casemill(data_dir, "restore", str(machine.folder.root))
    assert refused.exit_code == 1
    assert "data_dir_used" in refused.output


def test_who_was_shut_out_since_stays_out(machine: Machine) -> None:
    access = Access(machine.office.lifecycle.client, machine.office.lifecycle.keys)
    revoked, rotated, kept = (access.create(name) for name in ("revoked", "rotated", "kept"))
    session = access.open_session(access.start_login(access.check(kept).key_id))
    machine.backup()
    address = {"REDIS_URL": machine.office.lifecycle.settings.redis_url}
    for verb, key in (("revoke", revoked), ("rotate", rotated)):
        done = machine.casemill(machine.data_dir, "keys", verb, key.split("_")[1], **address)
        assert done.exit_code == 0, done.output
    with Restored(machine.restore("restored")) as restored:
        access = Access(restored.lifecycle.client, restored.lifecycle.keys)
        assert access.check(kept)
        for secret in (revoked, rotated):
            with pytest.raises(Unauthorized):
                access.check(secret)
        with pytest.raises(Unauthorized):
            access.check(session, session=True)
        noted = [entry.fields for entry in restored.audit.all("default") if entry.fields["actor"] == "restore"]
        assert [(entry["action"], entry["subject"]) for entry in noted] == [
            ("key.revoked", key.split("_")[1]) for key in (revoked, rotated)
        ]


def test_what_was_erased_since_is_not_restored_and_gone_from_earlier_backups(machine: Machine) -> None:
    office = machine.office
    document, other = office.upload(matter="m-1"), office.upload("Another one.", "other.txt")
    job = office.submit(document, "m-1", external_id=CASE, idempotency_key=CASE)
    lone = office.submit(None, "m-2")
    first = machine.backup()["backup"]
    office.erasures.document("acme", document, actor="key1")
    office.erasures.matter("acme", "m-2", actor="key1")
    assert machine.backup()["erased"] == 1
    if office.sealed:
        assert not holding(machine.root, *TELLING)
        assert not list(machine.folder.keys.glob(f"*/{document}"))
    assert not holding(machine.folder.blobs, NEEDLE)
    data_dir = machine.restore("restored", "--backup", first)
    assert not holding(data_dir, *TELLING)
    with Restored(data_dir) as restored:
        with pytest.raises(NotFound):
            restored.documents.get("acme", document)
        for gone in (job, lone):
            record = restored.lifecycle.get("acme", gone.id)
            assert record.problem and record.problem["code"] == "document_erased"
        assert restored.blobs.get("acme", other) == b"Another one."
        noted = [entry.fields["action"] for entry in restored.audit.all("acme")]
        assert noted.count("erasure.done") == 2
    assert office.upload(matter="m-1") == document, "it may come again"
    machine.backup()
    with Restored(machine.restore("again")) as restored:
        assert restored.blobs.get("acme", document) == CONTRACT.encode()


def test_what_was_taken_out_of_audit_logs_is_in_backups(machine: Machine) -> None:
    archive = AuditArchive(machine.data_dir)
    for number in range(3):
        machine.office.audit.note("acme", "a1", "document.uploaded", f"doc_{number}")
    archive.take_out(machine.office.audit, "acme", 9e9)
    machine.backup()
    data_dir = machine.restore("restored")
    (file,) = archive.folder.glob("acme/*.jsonl")
    file.unlink()
    machine.backup()
    with Restored(data_dir) as restored:
        verdict = restored.audit.verify("acme", exported=AuditArchive(data_dir).before)
        assert (verdict.broken, verdict.first, verdict.entries) == (None, 1, 4)
    assert list(machine.folder.root.glob("audit/acme/*.jsonl")), "what is moved away stays in the backups"


def test_an_erasure_destroys_the_keys_in_the_folder_of_backups_at_once(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    office, away = machine.office, machine.root / "not mounted"
    document, later = office.upload(matter="m-1"), office.upload("Another one.", "other.txt")
    job, lone = office.submit(document, "m-1"), office.submit(None, "m-2")
    first = machine.backup()["backup"]
    office.erasures.document("acme", document, actor="key1")
    office.erasures.matter("acme", "m-2", actor="key1")
    assert not list(machine.folder.keys.glob(f"*/{document}"))
    assert len(list(machine.folder.keys.glob("*/matter_*"))) == (1 if office.sealed else 0), "that of m-1"
    with Restored(machine.restore("restored", "--backup", first)) as restored:
        with pytest.raises(NotFound):
            restored.documents.get("acme", document)
        for gone in (job, lone):
            record = restored.lifecycle.get("acme", gone.id)
            assert record.problem and record.problem["code"] == "document_erased"
    machine.folder.root.rename(away)
    office.erasures.document("acme", later, actor="key1")
    assert "until the next backup" in caplog.text
    away.rename(machine.folder.root)
    assert len(list(machine.folder.keys.glob(f"*/{later}"))) == (1 if office.sealed else 0)
    machine.backup()
    assert not list(machine.folder.keys.glob(f"*/{later}"))


def test_a_key_that_is_destroyed_while_a_backup_runs_is_in_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, copies = tmp_path / "keys", tmp_path / "copies"
    for name in ("doc_1", "doc_2", "doc_3"):
        (keys / "acme").mkdir(parents=True, exist_ok=True)
        (keys / "acme" / name).write_bytes(name.encode())
    written = backup_folder.write_durably

    def erase_meanwhile(target: Path, data: bytes) -> None:
        for name in ("doc_1", "doc_2"):  # the one that is just written, and the one that is read next
            (keys / "acme" / name).unlink(missing_ok=True)
        written(target, data)

    monkeypatch.setattr(backup_folder, "write_durably", erase_meanwhile)
    mirror(keys, copies)
    assert [path.name for path in copies.glob("acme/*")] == ["doc_3"]


def test_a_snapshot_from_before_an_erasure_opens_for_nobody(tmp_path: Path) -> None:
    machine = Machine(tmp_path, sealed=True)
    try:
        document = machine.office.upload()
        machine.backup()
        thief = tmp_path / "copied-before"
        shutil.copytree(machine.folder.root, thief)
        machine.office.erasures.document("acme", document, actor="key1")
        machine.backup()
        # Even with the blobs of back then, the master key and every key that is left.
        shutil.rmtree(thief / "keys")
        shutil.copytree(machine.folder.keys, thief / "keys")
        settings = Settings.model_validate(
            {"data_dir": thief, "master_key_file": str(machine.root / "data.keys" / "master.key")}
        )
        with pytest.raises(Erased):
            Blobs(thief, Seals.of(settings)).get("acme", document)
    finally:
        machine.stop()


def test_a_backup_that_fails_is_not_there_and_those_before_are(machine: Machine) -> None:
    machine.office.upload()
    whole = machine.backup()["backup"]
    machine.office.upload("Another one.")

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(Unavailable) as failed:
        take_backup(machine.data_dir, machine.folder, at=9e9, dump=full)
    assert failed.value.code == "backup_failed"
    assert machine.folder.names() == [whole]
    assert machine.backup()["blobs"] == 2
    assert sorted(path.name for path in (machine.folder.root / "snapshots").iterdir()) == machine.folder.names()


def test_a_damaged_backup_is_refused_before_anything_is_written(machine: Machine) -> None:
    document = machine.office.upload()
    machine.backup()
    (blob,) = machine.folder.blobs.glob(f"*/*/{document}")
    whole = blob.read_bytes()
    for damaged in (whole[:-1], None):
        blob.write_bytes(damaged) if damaged else blob.unlink()
        refused = machine.casemill(machine.root / "restored", "restore", str(machine.folder.root))
        assert refused.exit_code == 1
        assert "backup_damaged" in refused.output
        assert not (machine.root / "restored").exists()
    blob.write_bytes(whole)
    (queue,) = machine.folder.root.glob("snapshots/*/queue.rdb")
    queue.write_bytes(queue.read_bytes()[:-9])
    assert "backup_damaged" in machine.casemill(machine.root / "restored", "restore", str(machine.folder.root)).output


def test_older_backups_go_with_the_blobs_that_only_they_name(machine: Machine) -> None:
    first = machine.office.upload()
    machine.backup()
    machine.office.documents.delete("acme", first)
    machine.office.upload("Another one.")
    assert machine.backup("--keep", "1")["forgotten"] == 1
    assert len(machine.folder.names()) == 1
    assert not list(machine.folder.blobs.glob(f"*/*/{first}"))
    machine.restore("restored")
