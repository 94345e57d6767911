"""An erasure that is asked for again is answered as the first one was, while it goes on and for a day afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gateway.stack.valkey import EmbeddedValkey
from services.audit import Audit
from services.errors import NotFound
from services.settings import Settings
from tests.integration.test_gateway import problem
from tests.integration.test_lifecycle import tidy
from tests.law_office import Office
from tests.serving import Served, serving, settings_on

__all__ = ["tidy"]  # an autouse fixture


@pytest.fixture
def office(settings: Settings) -> Iterator[Office]:
    office = Office(settings)
    yield office
    office.lifecycle.client.close()


class Died(Exception):
    """Where an erasure is cut off."""


def die(*_: object, **__: object) -> None:
    raise Died


def test_who_asks_again_is_told_what_the_first_erasure_removed(office: Office) -> None:
    document = office.upload(matter="m-1")
    office.submit(document, "m-1")
    counts = office.erasures.document("acme", document, actor="key1")
    assert (counts["documents"], counts["jobs"]) == (1, 1)
    assert office.erasures.document("acme", document, actor="key1") == counts, "not proved yet"
    office.settle()
    assert office.erasures.document("acme", document, actor="key1") == counts
    assert office.erasures.matter_of("acme", document) == "m-1"
    with pytest.raises(NotFound):
        office.erasures.document("rival", document, actor="key2")
    assert office.upload(matter="m-1") == document
    assert office.erasures.document("acme", document, actor="key1")["jobs"] == 0, "another one, of the same bytes"
    office.settle()
    raw: Any = office.lifecycle.client
    erased = office.lifecycle.keys("erased", tenant="acme", subject=document)
    assert 86_000 < raw.ttl(erased) <= 86_400
    raw.delete(erased)
    with pytest.raises(NotFound):
        office.erasures.document("acme", document, actor="key1")
    with pytest.raises(NotFound):
        office.erasures.matter_of("acme", document)


def test_a_matter_that_is_erased_again_keeps_the_counts_of_its_proof(office: Office) -> None:
    office.upload(matter="m-1")
    counts = office.erasures.matter("acme", "m-1", actor="key1")
    assert counts["documents"] == 1
    assert office.erasures.matter("acme", "m-1", actor="key1") == counts, "not proved yet"
    office.upload("another", matter="m-1")
    office.upload("a third", matter="m-1")
    more = office.erasures.matter("acme", "m-1", actor="key1")
    assert more["documents"] == 2, "those that are new"
    assert office.erasures.matter("acme", "m-1", actor="key1") == more
    office.settle()
    done = [entry.fields["details"] for entry in office.audit.all("acme") if entry.fields["action"] == "erasure.done"]
    assert [details["documents"] for details in done] == ["3"]
    assert office.erasures.matter("acme", "m-1", actor="key1") == more
    office.settle()
    office.upload("another", matter="m-1")
    assert office.erasures.matter("acme", "m-1", actor="key1") == counts | {"blobs": 1}
    office.settle()
    assert not any(office.erasures.matter("acme", "m-9", actor="key1").values()), "there never was anything of it"
    office.settle()


def test_a_repeat_carries_on_what_was_cut_off(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    document = office.upload(matter="m-1")
    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(office.documents, "forget", die)
        office.erasures.document("acme", document, actor="key1")
    assert office.erasures.matter_of("acme", document) == "m-1"
    assert office.blobs.exists("acme", document)
    assert office.erasures.document("acme", document, actor="key1")["documents"] == 1
    assert not office.blobs.exists("acme", document)
    office.settle()


def test_a_document_that_goes_with_its_matter_is_gone_when_its_own_erasure_answers(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = office.upload(matter="m-1")
    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(office.documents, "forget", die)
        office.erasures.matter("acme", "m-1", actor="key1")
    assert office.erasures.document("acme", document, actor="key1")["documents"] == 1
    assert not office.blobs.exists("acme", document)
    assert office.erasures.matter("acme", "m-1", actor="key1")["documents"] == 1
    office.settle()


def before(target: Any, name: str, first: Callable[[], Any], patch: pytest.MonkeyPatch) -> None:
    """Let something happen once, right before a method's next call."""
    method = getattr(target, name)

    def called(*args: Any, **named: Any) -> Any:
        patch.undo()
        first()
        return method(*args, **named)

    patch.setattr(target, name, called)


def test_one_that_somebody_else_has_just_carried_out_is_not_carried_out_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = office.upload(matter="m-1")
    other = Office(office.settings)
    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(office.erasures, "_try_to_carry_out", die)
        office.erasures.document("acme", document, actor="key1")
    before(office.erasures, "_holds_lock", other.erasures.carry_on, monkeypatch)
    assert office.erasures.document("acme", document, actor="key1")["documents"] == 1
    office.settle()
    other.lifecycle.client.close()


@pytest.mark.parametrize("proved", [True, False])
def test_what_is_begun_anew_is_not_taken_for_proved(
    office: Office, monkeypatch: pytest.MonkeyPatch, *, proved: bool
) -> None:
    office.upload(matter="m-1")
    office.erasures.matter("acme", "m-1", actor="key1")
    anew = office.upload("another", matter="m-1")

    def begin() -> None:
        with monkeypatch.context() as patched, pytest.raises(Died):
            patched.setattr(office.erasures, "_try_to_carry_out", die)
            office.erasures.matter("acme", "m-1", actor="key1")

    rewriting = office.erasures._rewriting
    answer = ([True], None) if proved else ([False], "a mark")

    def settle(_: object) -> Any:
        begin()
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(rewriting, "settle", settle)
        office.erasures.carry_on()
    (left,) = office.erasures.pending()
    assert left.entry["stage"] == "open"
    assert "erasure.done" not in actions(office)
    office.settle()
    assert actions(office).count("erasure.done") == 1
    assert not office.blobs.exists("acme", anew)
    assert office.upload("another", matter="m-1") == anew, "nothing stands in its way"


def actions(office: Office) -> list[str]:
    return [entry.fields["action"] for entry in office.audit.all("acme")]


@pytest.mark.parametrize("again", [False, True])
def test_what_is_proved_is_noted_also_if_its_prover_dies_before(
    office: Office, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    document = office.upload(matter="m-1")
    office.submit(document, "m-1")
    office.erasures.document("acme", document, actor="key1")
    monkeypatch.setattr(office.erasures._rewriting, "settle", lambda asked: ([True] * len(asked), None))
    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(office.erasures._audit, "note", die)
        office.erasures.carry_on()
    assert "erasure.done" not in actions(office)
    if again:  # the same bytes are uploaded, and erased too
        office.upload(matter="m-1")
        office.erasures.document("acme", document, actor="key1")
    office.erasures.carry_on()
    (done,) = [
        entry.fields["details"] for entry in office.audit.all("acme") if entry.fields["action"] == "erasure.done"
    ]
    assert (done["documents"], done["jobs"]) == ("2" if again else "1", "1")
    assert office.erasures.pending() == []


@pytest.fixture
def served(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_on(server, tmp_path_factory.mktemp("erased"))) as alone:
        yield alone


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_delete_that_is_sent_again_is_answered_alike(served: Served) -> None:
    key = served.access.create("m", tenant="acme", scopes=("submit", "read"), matters=["m-1"])
    other = served.access.create("o", tenant="acme", scopes=("submit", "read"), matters=["m-2"])
    params = {"read": False, "matter": "m-1"}

    def upload(text: str) -> str:
        return served.http.post("/v1/documents", params=params, content=text.encode()).json()["id"]

    path = f"/v1/documents/{upload('one')}"
    with httpx.Client(base_url=served.url, headers=bearer(key), timeout=30, trust_env=False) as limited:
        assert [limited.delete(path).status_code for _ in range(2)] == [204, 204]
        assert served.http.delete(path).status_code == 204
        problem(limited.get(path), 404, "document_unknown")
        problem(limited.delete(path, headers=bearer(other)), 404, "document_unknown")
        upload("two")
        upload("three")
        answers = [limited.delete("/v1/matters/m-1") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["documents"] == 2
    problem(served.http.delete("/v1/matters/m-9"), 404, "matter_unknown")
    with served.client("rival") as rival:
        problem(rival.delete(path), 404, "document_unknown")
        problem(rival.delete("/v1/matters/m-1"), 404, "matter_unknown")
    noted = [entry.fields["action"] for entry in Audit(served.lifecycle.client, served.lifecycle.keys).all("acme")]
    assert noted.count("erasure.begun") == 4, "of a repeat for a document nothing more is noted"
