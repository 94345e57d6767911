"""Reads ``Prefer`` (RFC 7240): whether a client waits for a job's end, and how long; others are passed over."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PREFERENCE = re.compile(r"""\s*([\w!#$%&'*+.^`|~-]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*))?[^,"]*(?:,|$)""")
MOST_HEADER = 1000
_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Preference:
    """What was asked for: ``wait`` seconds, ``None`` if nobody waits, and ``respond-async``."""

    wait: int | None = None
    respond_async: bool = False

    def applied(self, *, ended: bool) -> str | None:
        """The value of ``Preference-Applied``, once the job has ``ended`` in time or not; ``None`` for no header."""
        told = ["respond-async"] if self.respond_async and not ended else []
        told += [] if self.wait is None else [f"wait={self.wait}"]
        return ", ".join(told) or None


def read_preference(header: str, most_seconds: int) -> Preference:
    """The preferences of a request, ``wait`` capped; the first of a name counts, and what makes no sense does not."""
    found: dict[str, str] = {}
    for name, value in _PREFERENCE.findall(header[:MOST_HEADER]):
        found.setdefault(name.lower(), value.strip('"'))
    wait = found.get("wait", "")
    seconds = min(int(wait), most_seconds) if _SECONDS.fullmatch(wait) else None
    return Preference(seconds, "respond-async" in found)
