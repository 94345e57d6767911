"""The erasure log: ids and times of what was erased, as lines of a file, so that a restored backup is brought up to it.

It holds no text and no name of a file. Every ``casemill backup`` takes it along into the folder of backups.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from services.errors import Unavailable

FILE: Final = "erasures.jsonl"


@dataclass(frozen=True, slots=True, order=True)
class Logged:
    """One line: ``at`` is epoch seconds, ``subject`` a document's id, or ``matter:`` or ``key:`` and a name."""

    at: float
    tenant: str
    subject: str

    def line(self) -> str:
        """As it stands in the file."""
        return json.dumps({"at": self.at, "tenant": self.tenant, "subject": self.subject}) + "\n"


class ErasureLog:
    """The log in one folder; lines are only ever added, and may stand there twice."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def add(self, at: float, tenant: str, subjects: Iterable[str]) -> None:
        """Add lines, durably. Raises ``Unavailable`` when the disk is full: then nothing may be destroyed yet."""
        self.extend(Logged(at, tenant, subject) for subject in subjects)

    def extend(self, lines: Iterable[Logged]) -> None:
        """Add lines, durably."""
        data = "".join(line.line() for line in lines).encode()
        try:
            with self.path.open("ab+") as file:
                if file.tell() and not _ends_whole(file):  # a crash cut the last line off
                    data = b"\n" + data
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable(
                f"the erasure log {self.path} cannot be written ({error.strerror}); free space, then it goes on",
                code="storage_unavailable",
            ) from error

    def lines(self) -> Iterator[Logged]:
        """All lines; one that a crash cut off is left out, as its erasure is carried out and logged again."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            for text in file:
                try:
                    raw = json.loads(text)
                    yield Logged(float(raw["at"]), str(raw["tenant"]), str(raw["subject"]))
                except (ValueError, KeyError, TypeError):
                    continue

    def merge(self, other: ErasureLog) -> None:
        """Take over the lines that only another log has."""
        known = set(self.lines())
        if new := sorted(set(other.lines()) - known):
            self.extend(new)


def _ends_whole(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
