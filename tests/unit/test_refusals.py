"""Refused access in the audit log: what is counted, and what is told when there are too many kinds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway import refusals as module
from gateway.refusals import Refusals
from services.errors import Forbidden


class Notes:
    """An audit log that remembers whose refusals it was told of, and how many more there were."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.clients: list[str] = []

    def note(self, _tenant: str, actor: str, _action: str, _subject: str, **details: str) -> None:
        self.told.append((actor, details.get("more", "")))
        self.clients.append(details.get("client", ""))


def refuse(refusals: Refusals, key: str, host: str = "10.0.0.7") -> None:
    principal = SimpleNamespace(tenant="acme", key_id=key)
    client = SimpleNamespace(host=host)
    request: Any = SimpleNamespace(state=SimpleNamespace(principal=principal), scope={}, method="GET", client=client)
    refusals.note(request, Forbidden("no"))


def test_where_there_are_too_many_kinds_the_oldest_is_told_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KINDS", 2)
    notes = Notes()
    refusals = Refusals(cast(Any, notes))
    for key in ("one", "two", "one", "two", "two", "three"):
        refuse(refusals, key)
    assert notes.told == [("one", ""), ("two", ""), ("one", "1"), ("three", "")]
    refusals.close()
    assert notes.told[4:] == [("two", "2")]


def test_no_text_that_a_proxy_passes_on_gets_into_the_log() -> None:
    notes = Notes()
    refusals = Refusals(cast(Any, notes))
    for key, host in (("one", "10.0.0.7"), ("two", "2001:db8::1"), ("three", "John Doe, settlement"), ("four", "")):
        refuse(refusals, key, host)
    assert notes.clients == ["10.0.0.7", "2001:db8::1", "", ""]
