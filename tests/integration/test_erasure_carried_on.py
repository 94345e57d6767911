"""What the caretaker does with erasures that others begin, carry out and give anew while it looks at them."""

from __future__ import annotations

import json
import time
from typing import Any, NoReturn

import pytest

from services.audit import Audit
from services.erasure import ERASURES, Erasure
from tests.conftest import wait_until
from tests.integration.test_erasure import Died, office
from tests.integration.test_lifecycle import tidy
from tests.law_office import Office

__all__ = ["office", "tidy"]  # fixtures


def die(*_: object) -> NoReturn:
    raise Died


def test_the_caretaker_carries_out_nothing_that_was_carried_out_since_it_looked(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = office.upload(), office.upload("another")
    caretaker = Office(office.settings)
    carry_out, pending = office.erasures._try_to_carry_out, list[Erasure]()

    def seen_by_the_caretaker(wanted: Erasure) -> bool:
        pending.extend(caretaker.erasures.pending())
        return carry_out(wanted)

    with monkeypatch.context() as patched:
        patched.setattr(office.erasures, "_try_to_carry_out", seen_by_the_caretaker)
        assert office.erasures.document("acme", first, actor="key1")["documents"] == 1
    with monkeypatch.context() as patched:
        patched.setattr(caretaker.erasures, "pending", lambda: pending)
        assert caretaker.erasures.carry_on() == 0
    assert [one.is_open for one in office.erasures.pending()] == [False]
    office.erasures.document("acme", second, actor="key1")
    caretaker.settle()
    done = [entry.fields["subject"] for entry in office.audit.all("acme") if entry.fields["action"] == "erasure.done"]
    assert sorted(done) == sorted([first, second])
    caretaker.lifecycle.client.close()


def test_an_erasure_of_which_nothing_is_left_to_delete_is_proved(office: Office) -> None:
    raw: Any = office.lifecycle.client
    entry = {"at": str(time.time()), "actor": "key1", "stage": "open", "counts": {}}
    raw.hset(office.lifecycle.keys("erasures"), "acme|doc_gone", json.dumps(entry))
    office.settle()
    assert [entry.fields["action"] for entry in office.audit.all("acme")] == ["erasure.done"]


def test_one_erasure_that_fails_keeps_no_other_from_its_end(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [office.upload(text) for text in ("one", "two", "three")]
    forget, note, failing = office.documents.forget, Audit.note, set(documents[:2])

    with monkeypatch.context() as patched:
        patched.setattr(office.documents, "forget", die)
        for document in documents:
            with pytest.raises(Died):
                office.erasures.document("acme", document, actor="key1")

    def forget_others(tenant: str, these: list[str]) -> int:
        return die() if documents[0] in these else forget(tenant, these)  # pyright: ignore

    def note_others(audit: Audit, tenant: str, actor: str, action: str, subject: str, **counts: str) -> None:
        return die() if subject == documents[1] in failing else note(audit, tenant, actor, action, subject, **counts)

    def left() -> set[str]:
        with pytest.raises(Died):
            office.erasures.carry_on()
        return {one.subject for one in office.erasures.pending()}

    with monkeypatch.context() as patched:
        patched.setattr(office.documents, "forget", forget_others)
        patched.setattr(Audit, "note", note_others)
        wait_until(lambda: left() == failing, 30, "the end of the third")
    office.settle()


def test_what_is_erased_anew_is_not_taken_for_proved(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    document = office.upload()
    office.erasures.document("acme", document, actor="key1")
    (proved,) = office.erasures.pending()
    assert office.upload() == document

    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(office.documents, "forget", die)
        office.erasures.document("acme", document, actor="key1")
    office.erasures._settle(proved, False, "run")
    office.erasures._settle(proved, True, None)
    assert [one.is_open for one in office.erasures.pending()] == [True]
    office.settle()


def test_workers_forget_also_where_no_record_was_left(office: Office) -> None:
    """They may hold a prompt of the matter for longer than its job is known."""
    seen = office.lifecycle.counters().get(ERASURES, 0)
    office.erasures.matter("acme", "m-of-nothing", actor="key1")
    assert office.lifecycle.counters()[ERASURES] == seen + 1
