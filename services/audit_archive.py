"""What was taken out of audit logs once it was old enough: exported into files first, proved by an entry that stays.

The entries of a log that are older than the retention go into ``<data_dir>/audit/<tenant>/`` as JSONL, like those of
``casemill audit export``. Then one script adds the entry ``audit.trimmed``, which holds the number and the hash of the
last of them, and takes them out: the chain goes on, and what is left proves what was before it. A file is found by the
hash of its last entry, which the first entry after it holds, so the chain is followed from the log back into the files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.audit import Audit, Break, Chain, Entry
from services.durable_files import write_durably
from services.errors import Permanent, Unavailable

CARETAKER: Final = "caretaker"
"""Who takes entries out, as the actor of an entry."""
# Entries of one file: as many as are in memory at once.
MOST_ENTRIES: Final = 10_000


class AuditArchive:
    """The files of all logs of an installation."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "audit"

    def before(self, tenant: str, head: str) -> list[Entry]:
        """The entries that led to the one with the hash ``head``, oldest first, as far back as there are files."""
        found: list[list[Entry]] = []
        seen = set[str]()  # a file that was changed may name itself, or a later one
        while head and head not in seen and (part := self._ending_with(tenant, head)):
            found.append(part)
            seen.add(head)
            head = str(part[0].fields.get("previous"))
        return [entry for part in reversed(found) for entry in part]

    def take_out(self, audit: Audit, tenant: str, before: float, *, patience: float = 0.0) -> int:
        """Take entries from before an epoch time out of a log, a file's worth at most; answers how many.

        Nothing is done until the oldest is older than that by so many seconds of ``patience``. Raises ``Permanent``
        code ``audit_broken`` where their chain is broken: they are evidence, and stay. Raises ``Unavailable`` where
        they cannot be written: then they stay too.
        """
        old: list[Entry] = []
        for entry in audit.all(tenant):
            if len(old) == MOST_ENTRIES or _time(tenant, entry) >= before:
                break
            old.append(entry)
        if not old or _time(tenant, old[0]) >= before - patience:
            return 0
        chain = Chain()
        for entry in old:
            chain.take(entry)
        if broken := chain.broken:
            raise _broken(tenant, broken)
        self._write(tenant, old)
        audit.trim(tenant, CARETAKER, old[-1])
        return len(old)

    def _write(self, tenant: str, entries: Sequence[Entry]) -> None:
        path = self.folder / tenant / f"{entries[0].number:09d}-{entries[-1].hash}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(path, "".join(json.dumps(entry.fields) + "\n" for entry in entries).encode())
        except OSError as error:
            raise Unavailable(
                f"entries of the audit log cannot be exported ({error.strerror}); free space or check {self.folder}",
                code="storage_unavailable",
            ) from error

    def _ending_with(self, tenant: str, head: str) -> list[Entry]:
        for path in (self.folder / tenant).glob(f"*-{head}.jsonl"):
            return [_entry(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return []


def _time(tenant: str, entry: Entry) -> float:
    """When an entry was added, in seconds since the epoch; raises ``Permanent`` for one that says no time."""
    at = entry.fields.get("at")
    if not isinstance(at, float) or not math.isfinite(at):
        raise _broken(tenant, Break(entry.number, "the entry has no time"))
    return at


def _broken(tenant: str, broken: Break) -> Permanent:
    return Permanent(
        f"the audit log of {tenant} is broken at {broken.number} ({broken.reason}), so nothing is taken out",
        code="audit_broken",
    )


def _entry(line: str) -> Entry:
    """The entry that a line of a file is: its text is the JSON without the hash. One that is none fits no chain."""
    try:
        said = json.loads(line)
        hashed = str(said.pop("hash"))
        return Entry(int(said["number"]), json.dumps(said, sort_keys=True), hashed)
    except (ValueError, TypeError, AttributeError, KeyError):
        return Entry(0, line, "")
