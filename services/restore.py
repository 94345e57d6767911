"""Restores a backup into a data folder: every file checked first, what was erased or revoked since gone again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from services.access import Access
from services.audit_archive import AuditArchive
from services.backup import owner_of
from services.backup_folder import QUEUE, SECRET, BackupFolder, Snapshot, add_missing, copy_durably, mirror, sha256_of
from services.blobs import Blobs
from services.documents import Documents
from services.durable_files import write_durably
from services.erasure import MATTER, Erasures
from services.erasure_log import ErasureLog
from services.errors import Conflict, NotFound, Permanent, Unavailable
from services.lifecycle import Lifecycle
from services.redis_client import redis_errors
from services.revocations import KEY

ACTOR: Final = "restore"
PROOF_SECONDS: Final = 120.0
# What a server whose append-only file has several parts finds: a snapshot as the base, nothing after it.
_APPEND_ONLY: Final = "appendonlydir"
_BASE: Final = "appendonly.aof.1.base.rdb"


def check_empty(data_dir: Path) -> None:
    """Raise ``Conflict`` unless a folder is empty or not there."""
    if data_dir.exists() and any(data_dir.iterdir()):
        raise Conflict(
            f"{data_dir} is not empty; restore into an empty folder: set CASEMILL_DATA_DIR", code="data_dir_used"
        )


def check_snapshot(folder: BackupFolder, snapshot: Snapshot) -> int:
    """Compute every checksum again; answers how many blobs are gone because they were erased since.

    Raises ``Permanent`` code ``backup_damaged``, naming the first file that is not what the manifest says.
    """
    if snapshot.queue and sha256_of(folder.place(snapshot.name) / QUEUE) != snapshot.queue:
        raise _damaged(folder.place(snapshot.name) / QUEUE)
    erased = _erased_since(folder, snapshot)
    gone = 0
    for blob in snapshot.blobs:
        path = folder.blobs / blob.path
        if path.exists() and sha256_of(path) == blob.sha256:
            continue
        tenant, _, name = blob.path.partition("/")
        owners = blob.owners or (name.rpartition("/")[2],)
        if not any((tenant, owner) in erased for owner in owners):
            raise _damaged(path)
        gone += 1
    return gone


def copy_back(folder: BackupFolder, snapshot: Snapshot, data_dir: Path) -> None:
    """Copy a snapshot's files into a new folder. Raises ``Unavailable`` when the disk is full."""
    try:
        data_dir.mkdir(parents=True, mode=0o700)
        for blob in snapshot.blobs:
            if (folder.blobs / blob.path).exists():
                copy_durably(folder.blobs / blob.path, data_dir / "blobs" / blob.path)
        if folder.secret.exists():
            copy_durably(folder.secret, data_dir / SECRET)
        if snapshot.master:
            mirror(folder.keys, data_dir / "keys")
        add_missing(folder.audit, AuditArchive(data_dir).folder)
        ErasureLog(data_dir).merge(folder.log)
        if snapshot.queue:
            place = data_dir / "valkey" / _APPEND_ONLY
            copy_durably(folder.place(snapshot.name) / QUEUE, place / _BASE)
            write_durably(place / "appendonly.aof.manifest", f"file {_BASE} seq 1 type b\n".encode())
    except OSError as error:
        raise Unavailable(
            f"the backup could not be copied to {data_dir} ({error}); nothing was restored",
            code="restore_failed",
        ) from error


def shut_out_again(folder: BackupFolder, snapshot: Snapshot, lifecycle: Lifecycle) -> int:
    """Revoke the keys that were revoked or given another secret after the snapshot, and end all sessions.

    Answers how many keys there were: of a key that got another secret the backup knows the lost one alone.
    """
    access = Access(lifecycle.client, lifecycle.keys)
    access.end_sessions()
    count = 0
    for _, subject in _logged_since(folder, snapshot):
        if subject.startswith(KEY):
            with suppress(NotFound):  # made after the snapshot
                access.revoke(subject.removeprefix(KEY), actor=ACTOR)
                count += 1
    return count


def erase_again(folder: BackupFolder, snapshot: Snapshot, lifecycle: Lifecycle) -> int:
    """Erase what was erased after the snapshot, and what has lost its key; answers how many documents and matters.

    Waits until the server's file has nothing of it any more. Raises ``Unavailable`` where that takes too long.
    """
    blobs = Blobs(lifecycle.settings.data_dir, lifecycle.records.seals)
    documents = Documents(lifecycle.client, lifecycle.keys, blobs)
    erasures = Erasures(lifecycle, documents)
    count = 0
    for tenant, subject in [*_logged_since(folder, snapshot), *_without_key(lifecycle)]:
        if subject.startswith(KEY):
            continue
        try:
            if subject.startswith(MATTER):
                erasures.matter(tenant, subject.removeprefix(MATTER), actor=ACTOR)
            else:
                erasures.document(tenant, subject, actor=ACTOR)
            count += 1
        except NotFound:
            continue
    until = time.monotonic() + PROOF_SECONDS
    while erasures.pending():
        erasures.carry_on()
        if time.monotonic() > until:
            raise Unavailable("the server does not rewrite its append-only file; look at its log", code="rewrite_late")
        time.sleep(0.1)
    return count


def _logged_since(folder: BackupFolder, snapshot: Snapshot) -> list[tuple[str, str]]:
    lines = sorted(line for line in folder.log.lines() if line.at >= snapshot.at)
    return list(dict.fromkeys((line.tenant, line.subject) for line in lines))


def _erased_since(folder: BackupFolder, snapshot: Snapshot) -> set[tuple[str, str]]:
    return {(tenant, owner_of(tenant, subject)) for tenant, subject in _logged_since(folder, snapshot)}


def _without_key(lifecycle: Lifecycle) -> Iterator[tuple[str, str]]:
    keys = lifecycle.records.seals.keys
    if keys is None:
        return
    with redis_errors():
        for name in list(lifecycle.client.scan_iter(lifecycle.keys("documents", tenant="*"))):
            tenant = name.rpartition(":")[2]
            for document in lifecycle.client.zrange(name, 0, -1):
                if not keys.exists(tenant, document):
                    yield tenant, document


def put_in_place(restored: Path, data_dir: Path) -> None:
    """Give a folder that is whole its name."""
    if data_dir.exists():
        data_dir.rmdir()
    restored.replace(data_dir)


def _damaged(path: Path) -> Permanent:
    return Permanent(
        f"{path} is missing or not what the manifest says; take another backup, `casemill restore` names them",
        code="backup_damaged",
    )
