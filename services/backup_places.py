"""Where backups were made to: what is erased loses its key there at once, as far as the folder can be reached.

The folders are noted in the data folder by each backup. One that cannot be reached, a disk that is put away, say, is
brought up to the erasure by the next backup to it, so none is forgotten until somebody says so. Nobody waits for one
that hangs, as a share does whose server is away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from services.durable_files import sync_folder, write_durably
from services.erasure_log import ErasureLog
from services.errors import NotFound, Unavailable

log = logging.getLogger(__name__)

THREAD: Final = "backup-folder"
# All folders together; the caretaker's lock holds for longer.
REACH_SECONDS = 2.0


class BackupPlaces:
    """The folders of the backups of one data folder. Safe for threads."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "backup-folders"
        self._hanging: dict[Path, threading.Thread] = {}

    def note(self, folder: Path) -> None:
        """Remember a folder. Raises ``OSError``."""
        known = self._folders()
        if folder.resolve() not in known:
            self._write([*known, folder.resolve()])

    def forget(self, folder: Path) -> None:
        """Destroy no keys in a folder any more. Raises ``NotFound`` code ``backup_unknown``, and ``OSError``."""
        known = self._folders()
        if folder.resolve() not in known:
            raise NotFound(
                f"no backup was made to {folder}; there are: {', '.join(map(str, known)) or 'none'}",
                code="backup_unknown",
            )
        self._write([place for place in known if place != folder.resolve()])

    def erase(self, at: float, tenant: str, subjects: Collection[str], owners: Collection[str]) -> None:
        """Log an erasure in each folder and destroy the keys of ``owners`` there; takes a few seconds at most.

        One that does not answer counts as not reached, and is asked by no other erasure until it does.
        """
        reached = set[Path]()

        def reach(folder: Path) -> None:
            try:
                _erase(folder, at, tenant, subjects, owners)
                reached.add(folder)
            except (OSError, Unavailable):
                pass  # told below

        folders = self._folders()
        asked = {
            folder: threading.Thread(target=reach, args=(folder,), name=THREAD, daemon=True)
            for folder in folders
            if not self._hangs(folder)
        }
        for thread in asked.values():
            thread.start()
        until = time.monotonic() + REACH_SECONDS
        for folder, thread in asked.items():
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                self._hanging[folder] = thread
        for folder in folders:
            if folder not in reached:
                log.warning(
                    "the backups in %s cannot be reached: what is erased or revoked is not so there until the next "
                    "backup to it; if they are gone for good, `casemill backup %s --forget`",
                    folder,
                    folder,
                )

    def _hangs(self, folder: Path) -> bool:
        thread = self._hanging.get(folder)
        return thread is not None and thread.is_alive()

    def _folders(self) -> list[Path]:
        try:
            lines = self._file.read_bytes().decode("utf-8", "surrogateescape").splitlines()
        except FileNotFoundError:
            return []
        return [Path(line) for line in lines]

    def _write(self, places: Collection[Path]) -> None:
        write_durably(self._file, "".join(f"{place}\n" for place in places).encode("utf-8", "surrogateescape"))


def _erase(folder: Path, at: float, tenant: str, subjects: Collection[str], owners: Collection[str]) -> None:
    """Raises ``OSError`` or ``Unavailable`` where the folder is away, or is a mount point without its disk."""
    if not (folder / "snapshots").is_dir():
        raise FileNotFoundError(folder)
    ErasureLog(folder).add(at, tenant, subjects)
    keys = folder / "keys" / tenant
    for owner in owners:
        (keys / owner).unlink(missing_ok=True)
    if keys.is_dir():
        sync_folder(keys)
