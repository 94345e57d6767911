"""A folder of backups: snapshots of the queue in any number, and one pool of blobs and one set of keys for all of them.

``snapshots/<time>/`` holds ``queue.rdb`` and ``manifest.json``, which names every file with its SHA-256; it has its
name once all of it is on the disk. ``blobs/`` and ``audit/`` have each file once. ``keys/`` mirrors the data keys and
has no history: what is erased loses its key here, with the next backup at the latest, and in every snapshot before it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from services.audit_archive import AuditArchive
from services.durable_files import sync_folder, write_durably
from services.erasure_log import ErasureLog
from services.errors import NotFound, Permanent

_BLOCK: Final = 1 << 20
_MANIFEST: Final = "manifest.json"
QUEUE: Final = "queue.rdb"
SECRET: Final = "blob-secret"  # noqa: S105 - the name of its file


@dataclass(frozen=True, slots=True)
class KeptBlob:
    """A blob of a snapshot: ``path`` below ``blobs/``, and what it belongs to."""

    path: str
    bytes: int
    sha256: str
    owners: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a manifest says. ``at`` is epoch seconds of the server's clock.

    ``queue`` is a SHA-256, empty where the server is not ours; ``master`` names the master keys that the data keys were
    wrapped under, empty where nothing was sealed.
    """

    name: str
    at: float
    queue: str
    master: str
    blobs: tuple[KeptBlob, ...]


class BackupFolder:
    """One folder of backups."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.keys = root / "keys"
        self.secret = root / SECRET
        self.audit = AuditArchive(root).folder
        self.log = ErasureLog(root)

    def names(self) -> list[str]:
        """The snapshots, oldest first."""
        return sorted(path.parent.name for path in (self.root / "snapshots").glob(f"[!.]*/{_MANIFEST}"))

    def read(self, name: str | None = None) -> Snapshot:
        """A snapshot, the newest where none is named; raises ``NotFound``, or ``Permanent`` ``backup_damaged``."""
        names = self.names()
        chosen = name or (names[-1] if names else None)
        if chosen not in names:
            raise NotFound(
                f"{self.root} has no backup {name or ''}; there are: {', '.join(names) or 'none'}",
                code="backup_unknown",
            )
        try:
            raw: dict[str, Any] = json.loads((self.place(chosen) / _MANIFEST).read_bytes())
            blobs = tuple(KeptBlob(**(item | {"owners": tuple(item["owners"])})) for item in raw.pop("blobs"))
            return Snapshot(**raw, blobs=blobs)
        except (ValueError, TypeError, KeyError) as error:
            raise Permanent(f"the manifest of {chosen} cannot be read ({error})", code="backup_damaged") from None

    def place(self, name: str) -> Path:
        """Where a snapshot's own files lie."""
        return self.root / "snapshots" / name

    def started(self, name: str) -> Path:
        """A place for the files of a snapshot that is being taken; what was left of an earlier one is removed."""
        for left in (self.root / "snapshots").glob(".*"):
            shutil.rmtree(left)
        place = self.place(f".{name}")
        place.mkdir(parents=True)
        return place

    def finish(self, snapshot: Snapshot) -> None:
        """Give a snapshot its name: from now on it counts."""
        place = self.place(f".{snapshot.name}")
        write_durably(place / _MANIFEST, json.dumps(asdict(snapshot)).encode())
        place.rename(self.place(snapshot.name))
        sync_folder(self.root / "snapshots")

    def forget_all_but(self, count: int) -> int:
        """Remove older snapshots and the blobs that none names any more; answers how many snapshots."""
        old = self.names()[:-count]
        for name in old:
            shutil.rmtree(self.place(name))
        if old:
            named = {blob.path for name in self.names() for blob in self.read(name).blobs}
            for path in self.blobs.glob("*/*/*"):
                if path.relative_to(self.blobs).as_posix() not in named:
                    path.unlink()
        return len(old)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_durably(source: Path, target: Path) -> tuple[int, str]:
    """Copy a file whole or not at all and read the copy again; answers its size and SHA-256.

    Raises ``OSError``, also where the copy is not what was read.
    """
    digest, size = hashlib.sha256(), 0

    def blocks() -> Iterator[bytes]:
        nonlocal size
        with source.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
                yield block

    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(target, blocks())
    if sha256_of(target) != digest.hexdigest():
        raise OSError(f"{target} was not written as it was read")
    return size, digest.hexdigest()


def add_missing(source: Path, target: Path) -> None:
    """Copy the files of a folder that another has not yet; their names stand for what they hold."""
    for path in source.glob("*/[!.]*"):
        copy = target / path.relative_to(source)
        if not copy.exists():
            copy_durably(path, copy)


def mirror(source: Path, target: Path) -> None:
    """Make a folder of small files the same as another: what the source lacks is removed, durably.

    What is removed from the source meanwhile is removed too.
    """
    wanted = {path.relative_to(source) for path in source.glob("**/*") if path.is_file() and path.name[0] != "."}
    for name in sorted(wanted):
        data = _bytes_of(source / name)
        if data is not None and _bytes_of(target / name) != data:
            (target / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(target / name, data)
    for path in list(target.glob("**/*")):
        if path.is_file() and not (source / path.relative_to(target)).exists():
            path.unlink(missing_ok=True)
            sync_folder(path.parent)


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
