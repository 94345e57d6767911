"""The audit log on a real server: a chain that many write to at once and that tells where it was touched."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any

import pytest

from services.audit import Audit, Break
from services.keys import Keys
from services.lifecycle import Lifecycle


@pytest.fixture
def audit(lifecycle: Lifecycle) -> Audit:
    return Audit(lifecycle.client, lifecycle.keys)


def fill(audit: Audit, count: int = 4) -> list[str]:
    for number in range(count):
        audit.note("acme", "a1", "document.uploaded", f"doc_{number}", matter="M-1")
    return [entry.hash for entry in audit.entries("acme")]


def test_entries_say_who_did_what_and_are_read_in_pages(audit: Audit) -> None:
    fill(audit)
    (third,) = audit.entries("acme", after=2, limit=1)
    said = third.fields
    assert (said["number"], said["actor"], said["subject"]) == (3, "a1", "doc_2")
    assert said["details"] == {"matter": "M-1"}
    assert said["hash"] == third.hash
    assert [entry.number for entry in audit.all("acme")] == [1, 2, 3, 4]
    assert audit.entries("rival") == []
    assert (audit.verify("acme").entries, audit.verify("acme").broken) == (4, None)


def test_those_who_write_at_once_write_one_chain(audit: Audit) -> None:
    def write(who: int) -> None:
        for number in range(10):
            audit.note("acme", f"k{who}", "key.made", str(number))

    writers = [threading.Thread(target=write, args=(who,)) for who in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    verdict = audit.verify("acme")
    assert (verdict.entries, verdict.broken) == (60, None)
    times = [entry.fields["at"] for entry in audit.all("acme")]
    assert times == sorted(times)


def test_a_touched_entry_breaks_the_chain_where_it_stands(audit: Audit, lifecycle: Lifecycle, keys: Keys) -> None:
    fill(audit)
    raw: Any = lifecycle.client
    log = keys("audit", tenant="acme")
    rows = raw.xrange(log)

    def write(changed: list[tuple[str, dict[str, str]]]) -> Break | None:
        raw.delete(log)
        for number, fields in changed:
            raw.xadd(log, fields, id=number)
        return audit.verify("acme").broken

    second = json.loads(rows[1][1]["entry"])
    forged = json.dumps(second | {"actor": "somebody else"}, sort_keys=True)
    broken = write([rows[0], (rows[1][0], rows[1][1] | {"entry": forged}), *rows[2:]])
    assert broken
    assert broken.number == 2
    # Whoever forges the hash too breaks the entry after it.
    hashed = {"entry": forged, "hash": hashlib.sha256(forged.encode()).hexdigest()}
    broken = write([rows[0], (rows[1][0], hashed), *rows[2:]])
    assert broken
    assert broken.number == 3
    broken = write([rows[0], *rows[2:]])
    assert broken
    assert (broken.number, broken.reason) == (2, "the entry is missing")
    broken = write([rows[0], (rows[1][0], {"entry": "no JSON", "hash": rows[1][1]["hash"]}), *rows[2:]])
    assert broken
    assert broken.number == 2
    # Numbers may be closed up again: the hashes still tell.
    broken = write([rows[0], *[(f"{n}-0", fields) for n, (_, fields) in enumerate(rows[2:], 2)]])
    assert broken
    assert broken.number == 2
    assert write(rows) is None


def test_a_chain_that_was_cut_lacks_the_hash_that_was_written_down(audit: Audit, lifecycle: Lifecycle) -> None:
    hashes = fill(audit)
    assert audit.verify("acme", anchor=hashes[2]).broken is None
    raw: Any = lifecycle.client
    raw.xdel(lifecycle.keys("audit", tenant="acme"), "4-0")
    assert audit.verify("acme").broken is None
    assert audit.verify("acme", anchor=hashes[3]).broken
