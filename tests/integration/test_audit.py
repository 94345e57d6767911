"""The audit log on a real server: a chain that many write to at once and that tells where it was touched."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any

import pytest

from services import audit_archive
from services import caretaker as caretaking
from services.audit import Audit, Break, Entry
from services.audit_archive import AuditArchive
from services.blobs import Blobs
from services.caretaker import Caretaker
from services.errors import Permanent, Unavailable
from services.keys import Keys
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.conftest import wait_until

pytestmark = pytest.mark.both_servers


@pytest.fixture
def audit(lifecycle: Lifecycle) -> Audit:
    return Audit(lifecycle.client, lifecycle.keys)


def fill(audit: Audit, count: int = 4) -> list[str]:
    for number in range(count):
        audit.note("acme", "a1", "document.uploaded", f"doc_{number}", matter="M-1")
    return [entry.hash for entry in audit.entries("acme")]


def append(audit: Audit, tenant: str, text: str, *, number: int = 1) -> None:
    """Put an entry into a log that its chain does not allow for, as who can write to the server could."""
    raw: Any = audit._client
    raw.xadd(audit._keys("audit", tenant=tenant), {"entry": text, "hash": "x"}, id=f"{number}-0")


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


@pytest.fixture
def archive(settings: Settings) -> AuditArchive:
    return AuditArchive(settings.data_dir)


def test_what_is_old_is_exported_and_the_rest_proves_it(audit: Audit, archive: AuditArchive) -> None:
    hashes = fill(audit)
    times = [float(entry.fields["at"]) for entry in audit.all("acme")]
    assert archive.take_out(audit, "acme", times[0]) == 0
    assert archive.take_out(audit, "acme", times[2], patience=times[2] - times[0]) == 0, "a day is not full"
    assert not archive.folder.exists()
    assert archive.take_out(audit, "acme", times[2]) == 2
    assert [entry.number for entry in audit.all("acme")] == [3, 4, 5]
    rest = list(audit.all("acme"))[-1].fields
    assert (rest["action"], rest["details"]) == ("audit.trimmed", {"through": "2", "hash": hashes[1]})
    (file,) = archive.folder.glob("acme/*.jsonl")
    assert [json.loads(line)["hash"] for line in file.read_text().splitlines()] == hashes[:2]
    # With the files the whole chain is computed again, without them what is left.
    for exported, first in ((archive.before, 1), (None, 3)):
        verdict = audit.verify("acme", exported=exported)
        assert (verdict.broken, verdict.first, verdict.entries) == (None, first, 5)
    assert audit.verify("acme", anchor=hashes[0], exported=archive.before).broken is None
    assert audit.verify("acme", anchor=hashes[0]).broken
    assert archive.take_out(audit, "acme", 9e9) == 3
    assert [entry.number for entry in audit.all("acme")] == [6]
    verdict = audit.verify("acme", exported=archive.before)
    assert (verdict.broken, verdict.first, verdict.entries) == (None, 1, 6)
    assert audit.verify("acme").broken is None
    assert audit.page("acme", cursor=None, limit=10).rows[0].number == 6
    fill(audit, 1)
    assert audit.verify("acme", exported=archive.before).entries == 7


def test_what_somebody_else_took_out_is_missed(audit: Audit, archive: AuditArchive, lifecycle: Lifecycle) -> None:
    raw: Any = lifecycle.client
    log = lifecycle.keys("audit", tenant="acme")
    fill(audit)
    archive.take_out(audit, "acme", float(audit.entries("acme")[2].fields["at"]))
    fill(audit)
    raw.xdel(log, "3-0")
    broken = audit.verify("acme", exported=archive.before).broken
    assert broken
    assert broken.reason == "the entries before 4 are missing, and no entry says that they were taken out"
    raw.xtrim(log, minid="6-0", approximate=False)
    assert audit.verify("acme").broken, "the entry that told of it is gone too"


def test_a_changed_file_is_found(audit: Audit, archive: AuditArchive) -> None:
    fill(audit)
    archive.take_out(audit, "acme", 9e9)
    (file,) = archive.folder.glob("acme/*.jsonl")
    file.write_text(file.read_text().replace("doc_1", "doc_9"))
    broken = audit.verify("acme", exported=archive.before).broken
    assert broken
    assert (broken.number, broken.reason) == (2, "the entry is not what its hash is of")
    for damaged in ("no JSON\n", "[]\n", "{}\n"):
        file.write_text(damaged + file.read_text())
        assert audit.verify("acme", exported=archive.before).broken


def test_a_broken_chain_and_what_cannot_be_written_stay(
    audit: Audit, archive: AuditArchive, lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(audit)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(Unavailable):
        patch.setattr(audit_archive, "write_durably", full)
        archive.take_out(audit, "acme", 9e9)
    assert len(audit.entries("acme")) == 4
    raw: Any = lifecycle.client
    raw.xdel(lifecycle.keys("audit", tenant="acme"), "2-0")
    with pytest.raises(Permanent) as refused:
        archive.take_out(audit, "acme", 9e9)
    assert refused.value.code == "audit_broken"
    assert len(audit.entries("acme")) == 3


@pytest.mark.parametrize("at", ['"yesterday"', "[]", "null", "1" + "0" * 400, "NaN"])
@pytest.mark.parametrize("place", [1, 5])
def test_an_entry_whose_time_was_changed_is_a_break(
    audit: Audit, archive: AuditArchive, lifecycle: Lifecycle, at: str, place: int
) -> None:
    if place > 1:
        fill(audit)
    append(audit, "acme", f'{{"at": {at}}}', number=place)
    with pytest.raises(Permanent) as refused:
        archive.take_out(audit, "acme", 9e9)
    assert refused.value.code == "audit_broken"
    assert f"at {place}" in refused.value.detail
    assert len(audit.entries("acme")) == place


def test_a_changed_file_that_names_itself_as_the_one_before_is_read_once(audit: Audit, archive: AuditArchive) -> None:
    fill(audit)
    archive.take_out(audit, "acme", 9e9)
    (file,) = archive.folder.glob("acme/*.jsonl")
    head = file.stem.partition("-")[2]
    file.write_text(file.read_text().replace('"previous": ""', f'"previous": "{head}"'))
    reads = iter(range(3))
    ending_with = archive._ending_with

    def read(tenant: str, head: str) -> list[Entry]:
        next(reads)  # ends what would go on for ever
        return ending_with(tenant, head)

    archive._ending_with = read
    assert len(archive.before("acme", head)) == 4
    assert audit.verify("acme", exported=archive.before).broken


def test_the_caretaker_takes_out_what_is_older_than_the_setting_says(
    settings: Settings, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(audit)
    append(audit, "aaa", '{"at": "yesterday"}')  # its turn comes before that of the others
    monkeypatch.setattr(caretaking, "ROUND_SECONDS", 0.05)
    monkeypatch.setattr(caretaking, "DAY_SECONDS", 0)
    lifecycle = Lifecycle(settings.model_copy(update={"audit_days": 1}))
    caretaker = Caretaker(lifecycle, Blobs(settings.data_dir))
    caretaker.start()
    try:
        wait_until(lambda: [entry.fields["action"] for entry in audit.all("acme")] == ["audit.trimmed"], 10)
    finally:
        caretaker.stop()
        caretaker.join()
    raw: Any = lifecycle.client
    raw.delete(lifecycle.keys("caretaker"))
    raw.close()
