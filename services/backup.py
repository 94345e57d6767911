"""Takes a backup: the queue, then the blobs that it can name, then the keys that are left, then the erasure log."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services.audit_archive import AuditArchive
from services.backup_folder import (
    QUEUE,
    SECRET,
    BackupFolder,
    KeptBlob,
    Snapshot,
    add_missing,
    copy_durably,
    mirror,
    sha256_of,
)
from services.backup_places import BackupPlaces
from services.blobs import Blobs, StoredBlob
from services.data_keys import matter_owner
from services.erasure import MATTER
from services.erasure_log import ErasureLog
from services.errors import NotFound, Unavailable


@dataclass(frozen=True, slots=True)
class Taken:
    """What a backup did: ``copied`` blobs of all ``snapshot.blobs`` were not in the folder before."""

    snapshot: Snapshot
    copied: int
    removed: int


def take_backup(data_dir: Path, folder: BackupFolder, *, at: float, dump: Callable[[Path], None] | None) -> Taken:
    """Take a backup of a data folder; ``dump`` writes a snapshot of the queue to a path, ``None`` where it is not ours.

    Raises ``Unavailable`` code ``backup_failed`` where the disk is full, say: then no backup of this time is there, and
    those before are as they were.
    """
    name = time.strftime(f"%Y-%m-%dT%H-%M-%S.{int(at % 1 * 1e6):06d}Z", time.gmtime(at))
    try:
        place = folder.started(name)
        if dump:
            dump(place / QUEUE)
        kept, copied = _copy_blobs(Blobs(data_dir), folder)
        if (data_dir / SECRET).exists():
            copy_durably(data_dir / SECRET, folder.secret)
        BackupPlaces(data_dir).note(folder.root)  # before the keys: an erasure from now on reaches them there
        if (data_dir / "keys").exists():
            mirror(data_dir / "keys", folder.keys)
        add_missing(AuditArchive(data_dir).folder, folder.audit)
        folder.log.merge(ErasureLog(data_dir))
        removed = _remove_erased(folder, kept)
        snapshot = Snapshot(
            name=name,
            at=at,
            queue=sha256_of(place / QUEUE) if dump else "",
            master=(folder.keys / "master").read_text() if (folder.keys / "master").exists() else "",
            blobs=tuple(kept.values()),
        )
        folder.finish(snapshot)
    except OSError as error:
        raise Unavailable(
            f"the backup to {folder.root} failed and is not there ({error}); earlier ones are whole",
            code="backup_failed",
        ) from error
    return Taken(snapshot, copied, removed)


def _copy_blobs(blobs: Blobs, folder: BackupFolder) -> tuple[dict[str, KeptBlob], int]:
    known: dict[str, KeptBlob] = {}
    with suppress(NotFound):
        known = {blob.path: blob for blob in folder.read().blobs}
    kept: dict[str, KeptBlob] = {}
    copied = 0
    for blob in blobs.stored():
        path = blob.path.relative_to(blobs.root).as_posix()
        if blob.path.name.startswith("."):
            continue
        owners = blob.header.owners if blob.header else ()
        if path in known and _same(blob, folder.blobs / path):
            kept[path] = known[path]
            continue
        with suppress(FileNotFoundError):  # erased or swept meanwhile
            size, digest = copy_durably(blob.path, folder.blobs / path)
            kept[path] = KeptBlob(path, size, digest, owners)
            copied += 1
    return kept, copied


def _same(blob: StoredBlob, copy: Path) -> bool:
    """Whether a copy is of this very file: a name stands for its content, the first line for the key."""
    try:
        with copy.open("rb") as file:
            line = file.readline() if blob.header else b""
        return blob.path.stat().st_size == copy.stat().st_size and line == (blob.header.line if blob.header else b"")
    except FileNotFoundError:
        return False


def _remove_erased(folder: BackupFolder, kept: dict[str, KeptBlob]) -> int:
    """Remove what was erased since it came into the folder, so that it goes without seals too; answers how many."""
    erased = {(line.tenant, owner_of(line.tenant, line.subject)) for line in folder.log.lines()}
    removed = 0
    for blob in Blobs(folder.root).stored():
        path = blob.path.relative_to(folder.blobs).as_posix()
        tenant = path.partition("/")[0]
        owners = blob.header.owners if blob.header else (blob.path.name,)
        if path not in kept and any((tenant, owner) in erased for owner in owners):
            blob.path.unlink()
            removed += 1
    return removed


def owner_of(tenant: str, subject: str) -> str:
    """The owner of blobs that the subject of an erasure stands for."""
    return matter_owner(tenant, subject.removeprefix(MATTER)) if subject.startswith(MATTER) else subject
