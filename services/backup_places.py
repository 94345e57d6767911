"""Where backups were made to: what is erased loses its key there at once, as far as the folder can be reached.

The folders are noted in the data folder by each backup. One that cannot be reached, a disk that is put away, say, is
brought up to the erasure by the next backup to it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from services.durable_files import sync_folder, write_durably
from services.erasure_log import ErasureLog
from services.errors import Unavailable

log = logging.getLogger(__name__)


class BackupPlaces:
    """The folders of the backups of one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "backup-folders"

    def note(self, folder: Path) -> None:
        """Remember a folder; those that are not there any more are forgotten. Raises ``OSError``."""
        known = [place for place in self._folders() if place.is_dir()]
        if folder.resolve() not in known:
            places = [*known, folder.resolve()]
            write_durably(self._file, "".join(f"{place}\n" for place in places).encode("utf-8", "surrogateescape"))

    def erase(self, at: float, tenant: str, subjects: Collection[str], owners: Collection[str]) -> None:
        """Log an erasure in each folder and destroy the keys of ``owners`` there."""
        for folder in self._folders():
            try:
                if not folder.is_dir():
                    raise FileNotFoundError
                ErasureLog(folder).add(at, tenant, subjects)
                keys = folder / "keys" / tenant
                for owner in owners:
                    (keys / owner).unlink(missing_ok=True)
                if keys.is_dir():
                    sync_folder(keys)
            except (OSError, Unavailable):
                log.warning(
                    "the backups in %s cannot be reached: what is erased keeps its key there until the next backup",
                    folder,
                )

    def _folders(self) -> list[Path]:
        try:
            lines = self._file.read_bytes().decode("utf-8", "surrogateescape").splitlines()
        except FileNotFoundError:
            return []
        return [Path(line) for line in lines]
