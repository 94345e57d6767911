"""Where the command line finds the gateway and its key: a file that `casemill up` writes for its owner alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from services.durable_files import write_durably


@dataclass(frozen=True, slots=True)
class ClientAccess:
    """URL of the gateway and an API key."""

    url: str
    key: str


class ClientFile:
    """``<data_dir>/client.json``."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "client.json"

    def read(self) -> ClientAccess | None:
        """What the file says, or ``None`` when there is none."""
        try:
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            return ClientAccess(url=raw["url"], key=raw["key"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def write(self, url: str, key: str) -> None:
        """Replace the file."""
        write_durably(self.path, json.dumps({"url": url, "key": key}).encode(), mode=0o600)
