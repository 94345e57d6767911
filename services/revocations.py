"""Keys that were revoked or given another secret, noted where backups are, so that a restored one lets none in."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.backup_places import BackupPlaces
from services.erasure_log import ErasureLog

KEY: Final = "key:"
"""How the subject of a line of the erasure log begins that is about a key."""


class Revocations:
    """Notes them for one data folder, and in every folder of backups that can be reached. Safe for threads."""

    def __init__(self, data_dir: Path) -> None:
        self._log = ErasureLog(data_dir)
        self._places = BackupPlaces(data_dir)

    def note(self, at: float, tenant: str, key_id: str) -> None:
        """To be called first, with epoch seconds of the server. Raises ``Unavailable`` when the disk is full."""
        self._log.add(at, tenant, [KEY + key_id])
        self._places.erase(at, tenant, [KEY + key_id], ())
