"""Reads lines and server-sent events from a body that comes in pieces, wherever these are cut."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from casemill.models import Event


@dataclass(slots=True)
class Lines:
    """Puts lines together. They end by a line feed alone: text of documents may hold any other separator."""

    _begun: list[bytes] = field(default_factory=list[bytes])

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that are whole with this piece, without their ends."""
        *whole, begun = piece.split(b"\n")
        if whole:
            whole[0] = b"".join((*self._begun, whole[0]))
            self._begun.clear()
        self._begun.append(begun)
        return [line.removesuffix(b"\r") for line in whole]

    @property
    def torn(self) -> bool:
        """Whether a line has begun that is not whole yet."""
        return any(self._begun)


@dataclass(slots=True)
class EventLines:
    """Puts server-sent events together."""

    _lines: Lines = field(default_factory=Lines)
    _fields: dict[str, str] = field(default_factory=dict[str, str])

    def feed(self, piece: bytes) -> list[Event]:
        """The events that are whole with this piece; a comment is none."""
        events: list[Event] = []
        for line in self._lines.feed(piece):
            if line:
                name, _, value = line.decode().partition(":")
                self._fields[name] = value.removeprefix(" ")
                continue
            fields, self._fields = self._fields, {}
            if "data" in fields:
                events.append(Event(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"])))
        return events
