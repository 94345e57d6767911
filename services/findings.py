"""What a scan finds, as it travels from a worker through results to the reader: the wire type of one finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a playbook's term stands: ``text[start:end]`` in code points of the original text.

    ``category`` is the category's id, ``term`` the literal or pattern as the playbook writes it.
    """

    category: str
    start: int
    end: int
    term: str

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values that :meth:`from_json` reads back equal."""
        return {"category": self.category, "start": self.start, "end": self.end, "term": self.term}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Finding:
        """The finding that :meth:`to_json` wrote."""
        return cls(str(raw["category"]), int(raw["start"]), int(raw["end"]), str(raw["term"]))
