"""Erasure against a real server: fenced against what runs, completed by whoever lives, and gone from every byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.stack.valkey import reachable_settings
from services import caretaker as caretaking
from services import erasure
from services.caretaker import Caretaker
from services.data_keys import Erased
from services.errors import NotFound, Permanent, Transient, Unavailable
from services.fleet import Announcement, Fleet
from services.jobs import JobType, Lane, State, Submission
from services.orphans import remove_orphans
from services.recurrence import Missed, Recurrence
from services.redis_client import connect
from services.rewriting import Rewriting
from services.runs import RunSubmission
from services.schedules import Schedules
from services.sealed_records import owners_of
from services.seals import Seals
from services.settings import Settings
from tests.conftest import wait_until
from tests.integration.conftest import Running, running
from tests.integration.test_lifecycle import claim, events, finish, tidy
from tests.law_office import CASE, CONTRACT, FILE_NAME, NEEDLE, TELLING, Office, dump_of, holding
from workers.forgetting import Forgetting
from workers.toolbox import Toolbox

__all__ = ["tidy"]  # an autouse fixture
pytestmark = pytest.mark.both_servers


@pytest.fixture(params=["sealed", "plain"])
def office(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Office]:
    if request.param == "sealed":
        assert Seals.make_master_key(settings)
    office = Office(settings)
    yield office
    office.lifecycle.client.close()


def test_sealed_records_hold_no_text_and_are_read_as_they_were(office: Office) -> None:
    document = office.upload(matter="m-1")
    job = office.submit(document, "m-1", metadata={"reference": NEEDLE}, external_id=CASE, idempotency_key=CASE)
    plain = office.submit(None, "m-1")
    run, _ = office.runs.submit(RunSubmission(NEEDLE, Submission("acme", JobType.EXTRACT, {}, metadata={"a": NEEDLE})))
    office.runs.add("acme", run.id, [document])
    held = claim(office.lifecycle, Lane.EXTRACT, n=2)
    assert {one.input["name"] for one in held} == {FILE_NAME}
    assert office.lifecycle.append(held[0], "token", {"text": NEEDLE})
    child = next(one for one in held if one.root.startswith("job" + run.id[3:]))
    problem = Permanent(f"it says {NEEDLE}", code="odd").problem()
    finish(office.lifecycle, child, "failed", problem=problem)
    office.runs.seal("acme", run.id)
    answered = office.submit(None, "m-1")
    result = {"text": f"an answer: {NEEDLE}"}
    ends = {one.id: one for one in claim(office.lifecycle, Lane.GENERATE, n=2)}
    finish(office.lifecycle, ends[answered.id], result=json.dumps(result))
    dump = office.dump()
    for needle in TELLING:
        assert (needle.encode() in dump) is not office.sealed
    assert office.documents.get("acme", document).name == FILE_NAME
    assert office.lifecycle.get("acme", job.id).metadata == {"reference": NEEDLE}
    assert office.lifecycle.get("acme", job.id).external_id == CASE
    assert office.lifecycle.get("acme", plain.id).input == {"prompt": NEEDLE}
    assert office.lifecycle.get("acme", child.id).problem == problem
    assert office.runs.get("acme", run.id).name == NEEDLE
    assert office.runs.get("acme", run.id).metadata == {"a": NEEDLE}
    row = next(office.runs.documents("acme", run.id))
    assert (row.name, row.detail) == (FILE_NAME, f"it says {NEEDLE}")
    assert FILE_NAME in [event.data.get("name") for event in events(office.settings, office.lifecycle, run.id)]
    tokens = [event.data for event in events(office.settings, office.lifecycle, child.id)]
    assert tokens[-1]["problem"] == problem
    assert json.loads(office.lifecycle.get("acme", answered.id).result or "") == result
    for one in held:
        office.lifecycle.cancel("acme", one.root)
    finish(office.lifecycle, next(one for one in held if one is not child), "cancelled")
    finish(office.lifecycle, ends[plain.id], "released")
    office.lifecycle.cancel("acme", plain.id)
    counts = office.erasures.matter("acme", "m-1", actor="key1")
    assert counts["documents"] == 1
    office.settle()
    assert f"an answer: {NEEDLE}".encode() not in office.dump()
    assert office.lifecycle.get("acme", answered.id).result is None


def test_a_job_that_runs_on_it_can_write_nothing_afterwards(office: Office) -> None:
    document = office.upload()
    job = office.submit(document, external_id=CASE, idempotency_key=CASE)
    (held,) = claim(office.lifecycle, Lane.EXTRACT)
    kept = office.keep(held, document)
    assert office.lifecycle.append(held, "token", {"text": NEEDLE})
    counts = office.erasures.document("acme", document, actor="key1")
    assert counts["documents"] == 1
    assert counts["jobs"] == 1
    assert not office.blobs.exists("acme", kept)
    assert not office.lifecycle.append(held, "token", {"text": NEEDLE})
    with pytest.raises(NotFound):
        office.keep(held, document)
    assert not finish(office.lifecycle, held, result=kept)
    assert office.lifecycle.renew([held.member], []) == {held.member: "lost"}
    ended = office.lifecycle.get("acme", job.id)
    assert ended.state is State.CANCELLED
    assert ended.problem and ended.problem["code"] == "document_erased"
    assert ended.result is None
    assert [event.event for event in events(office.settings, office.lifecycle, job.id)] == ["cancelled"]
    with pytest.raises(NotFound):
        office.lifecycle.replay("acme", job.id)
    with pytest.raises(NotFound):
        office.submit(document)
    office.settle()
    assert not holding(office.settings.data_dir, *TELLING)
    for needle in TELLING:
        assert needle.encode() not in office.dump()


def test_a_matter_goes_with_its_documents_jobs_runs_and_schedules_and_no_other(office: Office) -> None:
    first, second = office.upload(matter="m-1"), office.upload(CONTRACT + "2", matter="m-1")
    other = office.upload("Nothing to see here.", "plain.txt", "m-2")
    waiting = office.submit(first, "m-1", external_id=CASE)
    ended = office.submit(None, "m-1", metadata={"client": NEEDLE}, external_id=CASE)
    later = office.submit(None, "m-1", not_before=4e9)
    bystander = office.submit(other, "m-2")
    work = Submission("acme", JobType.EXTRACT, {}, matter="m-1", metadata={"client": NEEDLE})
    run, _ = office.runs.submit(RunSubmission(NEEDLE, work, whole_matter=True))
    mixed, _ = office.runs.submit(RunSubmission("mixed", Submission("acme", JobType.EXTRACT, {})))
    office.runs.add("acme", mixed.id, [other, second])
    schedules, nightly = Schedules(office.lifecycle), Recurrence("UTC", 0, cron="0 3 * * *")
    schedule = schedules.add(NEEDLE, nightly, Missed.SKIP, work)
    kept = schedules.add("other", nightly, Missed.SKIP, replace(work, matter="m-2", metadata={}))
    (held,) = claim(office.lifecycle, Lane.GENERATE)
    result = office.blobs.put("acme", "res", NEEDLE.encode(), owners=owners_of("acme", None, "m-1"), scope=held.id)
    finish(office.lifecycle, held, result=result)
    counts = office.erasures.matter("acme", "m-1", actor="key1")
    assert counts["documents"] == 2
    assert counts["schedules"] == 1
    assert counts["jobs"] == 6, "three jobs, two of the run and one of the other run"
    for gone in (waiting, ended, later):
        record = office.lifecycle.get("acme", gone.id)
        assert record.state.final
        assert record.problem and record.problem["code"] == "document_erased"
    assert office.runs.get("acme", run.id).state is State.CANCELLED
    assert office.runs.get("acme", run.id).name == "(erased)"
    assert {row.code for row in office.runs.documents("acme", run.id)} == {"document_erased"}
    rows = office.runs.documents("acme", mixed.id)
    assert [(row.name, row.code) for row in rows] == [("plain.txt", None), (None, "document_erased")]
    with pytest.raises(NotFound):
        schedules.get("acme", schedule.id)
    assert [row.id for row in schedules.list("acme").rows] == [kept.id]
    assert office.lifecycle.get("acme", bystander.id).state is State.WAITING
    assert office.documents.of_matter("acme", "m-2") == [other]
    office.settle()
    assert not holding(office.settings.data_dir, *TELLING)
    for needle in TELLING:
        assert needle.encode() not in office.dump()
    assert office.upload(matter="m-1") == first, "the matter may begin anew"
    assert office.blobs.get("acme", first) == CONTRACT.encode()
    for one in (bystander.id, mixed.id):
        office.lifecycle.cancel("acme", one)


class Died(Exception):
    """Where an erasure is cut off."""


def test_nothing_begins_on_what_is_being_erased(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    document = office.upload(matter="m-1")

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(office.documents, "forget", die)
        office.erasures.matter("acme", "m-1", actor="key1")
    for refused in (
        lambda: office.upload(matter="m-1"),
        lambda: office.upload("another", matter="m-1"),
        lambda: office.submit(None, "m-1"),
        lambda: office.runs.submit(RunSubmission("r", Submission("acme", JobType.EXTRACT, {}, matter="m-1"))),
    ):
        with pytest.raises(Unavailable) as why:
            refused()
        assert why.value.code == "erasing"
    office.settle()
    assert office.upload(matter="m-1") == document


def test_a_schedule_of_what_is_being_erased_keeps_no_other_from_firing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw: Any = office.lifecycle.client
    schedules = Schedules(office.lifecycle)
    due = int(schedules.now()) - 60
    for number, matter in enumerate(("m-1", "m-2")):
        office.upload(matter=matter)
        work = Submission("acme", JobType.EXTRACT, {}, matter=matter)
        kept = schedules.add("nightly", Recurrence("UTC", 0, cron="0 3 * * *"), Missed.ONCE, work)
        raw.hset(office.lifecycle.keys("schedule", tenant="acme", id=kept.id), "next", str(due + number))
        raw.zadd(office.lifecycle.keys("schedules"), {f"acme|{kept.id}": due + number})

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(office.erasures, "_erase_jobs", die)
        office.erasures.matter("acme", "m-1", actor="key1")
    assert schedules.fire() == 1
    (run,) = office.runs.list("acme").rows
    assert run.matter == "m-2"
    office.runs.cancel("acme", run.id)
    office.settle()
    (left,) = schedules.list("acme").rows
    assert left.work.matter == "m-2"


def dies_at(settings: Settings, step: str, document: str) -> int:
    """Erase a document in a process that is killed as it begins a step; answers its exit status."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        erasure.LOCK_MILLISECONDS = 200
        office = Office(settings)
        where = {"_save": office.erasures, "forget": office.documents, "erase": office.blobs}[step]
        setattr(where, step, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))  # pyright: ignore
        office.erasures.document("acme", document, actor="key1")
    finally:
        os._exit(1)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("step", ["_save", "forget", "erase"])
def test_an_erasure_that_was_killed_is_carried_on_by_the_caretaker(
    office: Office, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = office.upload()
    job = office.submit(document)
    (held,) = claim(office.lifecycle, Lane.EXTRACT)
    office.keep(held, document)
    assert dies_at(office.settings, step, document) == -signal.SIGKILL
    monkeypatch.setattr(caretaking, "ROUND_SECONDS", 0.1)
    assert office.erasures.pending()
    caretaker = Caretaker(office.lifecycle, office.blobs)
    caretaker.start()
    try:
        wait_until(lambda: not office.erasures.pending(), 30, "the erasure")
    finally:
        caretaker.stop()
        caretaker.join()
    assert office.lifecycle.get("acme", job.id).state is State.CANCELLED
    assert not holding(office.settings.data_dir, *TELLING)
    assert NEEDLE.encode() not in office.dump()
    raw: Any = office.lifecycle.client
    raw.delete(office.lifecycle.keys("caretaker"))


def test_the_audit_log_proves_it_and_names_nothing(office: Office) -> None:
    document = office.upload()
    office.submit(document)
    office.erasures.document("acme", document, actor="key1")
    office.settle()
    noted = [entry.fields for entry in office.audit.all("acme")]
    assert [(entry["action"], entry["subject"]) for entry in noted] == [
        ("erasure.begun", document),
        ("erasure.done", document),
    ]
    assert noted[-1]["details"]["documents"] == "1"
    assert noted[-1]["details"]["jobs"] == "1"
    assert office.audit.verify("acme").broken is None
    assert FILE_NAME not in json.dumps(noted)


def test_it_is_done_when_every_live_worker_keeps_nothing_in_memory(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, dropped = office.upload(), list[str]()
    forgetting = Forgetting(office.lifecycle, [lambda: dropped.append("prompts"), lambda: dropped.append("rooms")])
    fleet = Fleet(office.lifecycle.client, office.lifecycle.keys)

    def announce() -> None:
        said = Announcement("w1", "here", 1, "cpu", "", ("analyze",), 1, 0, (), (), 0, "fake", "0", 0.0)
        fleet.announce(replace(said, forgotten=forgetting.seen))

    monkeypatch.setattr(Rewriting, "settle", lambda _self, asked: ([True] * len(asked), None))
    forgetting.look()
    announce()
    office.erasures.document("acme", document, actor="key1")
    office.erasures.carry_on()
    assert office.erasures.pending(), "the worker has not looked"
    assert dropped == []
    forgetting.look()
    assert dropped == ["prompts", "rooms"]
    office.erasures.carry_on()
    assert office.erasures.pending(), "it has not said so"
    announce()
    office.erasures.carry_on()
    assert not office.erasures.pending()
    forgetting.look()
    assert dropped == ["prompts", "rooms"], "nothing more was erased"
    fleet.leave("w1")


@pytest.fixture(scope="module", params=["sealed", "plain"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    changes: dict[str, Any] = {} if request.param == "sealed" else {"master_key_file": "none"}
    with running(tmp_path_factory.mktemp("erasure") / "data", **changes) as stack:
        yield stack


def test_no_byte_of_the_data_folder_or_the_append_only_file_has_it(stack: Running) -> None:
    document = stack.http.post(
        "/v1/documents", params={"name": FILE_NAME, "matter": "m-1"}, content=CONTRACT.encode()
    ).json()["id"]
    other = stack.http.post(
        "/v1/documents", params={"name": "other.txt", "matter": "m-1"}, content=CONTRACT.replace(NEEDLE, "X").encode()
    ).json()["id"]
    run = stack.http.post("/v1/runs", json={"type": "analyze", "name": FILE_NAME, "matter": "m-1"}).json()
    jobs = [
        stack.submit(type="review", document=document, matter="m-1", metadata={"file": FILE_NAME}, external_id=CASE),
        stack.submit(type="generate", input={"prompt": f"Who is {NEEDLE}? " + 20_000 * "x"}, matter="m-1"),
        stack.submit(type="compare", input={"before": document, "after": other}, external_id=CASE),
        stack.submit(type="duplicates", matter="m-1", input={}),
        stack.submit(type="count", matter="m-1", input={}),
        stack.submit(type="search", matter="m-1", input={"queries": ["indemnify"], "matter": "m-1"}),
    ]
    views = [stack.finished(job["id"]) for job in jobs]
    assert [view["state"] for view in views] == 6 * ["succeeded"], views
    wait_until(lambda: stack.http.get(f"/v1/runs/{run['id']}").json()["state"] == "succeeded", 60)
    if stack.settings.master_key_file == "none":
        assert holding(stack.settings.data_dir, NEEDLE), "the search finds what is there"
    else:
        assert not holding(stack.settings.data_dir, *TELLING)
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", "erase", "--matter", "m-1", "--yes", "--json"],
        env=os.environ | {"CASEMILL_DATA_DIR": str(stack.settings.data_dir), "CASEMILL_URL": stack.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["documents"] == 2
    wait_until(lambda: not holding(stack.settings.data_dir, *TELLING), 60, "the rewrite of the append-only file")
    client = connect(reachable_settings(stack.settings))
    assert not [needle for needle in TELLING if needle.encode() in dump_of(client, stack.settings.prefix)]
    client.close()
    assert stack.http.get(f"/v1/documents/{document}").status_code == 404
    for job in jobs[:2]:
        assert stack.job(job["id"])["problem"]["code"] == "document_erased"
    assert all(stack.job(job["id"])["result"] is None for job in jobs)
    again = stack.http.delete("/v1/matters/m-1")
    assert (again.status_code, again.json()) == (200, {name: told[name] for name in again.json()})


def test_files_that_a_death_left_without_a_record_are_swept(office: Office) -> None:
    document = office.upload()
    lost = office.blobs.put_document("acme", b"stored, and its process died before it was recorded")
    kept = office.blobs.put("acme", "res", b"about two", owners=(document,))
    orphan = office.blobs.put("acme", "res", b"about two", owners=(document, lost))
    client, keys = office.lifecycle.client, office.lifecycle.keys
    assert remove_orphans(client, keys, office.blobs, time.time() - 60) == 0, "they may yet be recorded"
    assert remove_orphans(client, keys, office.blobs, time.time() + 1) == 2
    assert [office.blobs.exists("acme", name) for name in (document, lost, kept, orphan)] == [True, False, True, False]


def test_a_result_is_known_under_what_it_quotes_as_long_as_its_job_and_no_longer(office: Office) -> None:
    raw: Any = office.lifecycle.client
    document, kept = office.upload(), office.settings.result_ttl_seconds
    nothing: Any = None
    toolbox = Toolbox(office.settings, office.blobs, office.documents, *[nothing] * 5)
    job = office.submit(None)
    (held,) = claim(office.lifecycle, Lane.GENERATE)
    results = office.lifecycle.keys("results", tenant="acme", document=document)
    raw.zadd(results, {"job_ended_long_ago|res_x": 1})
    blob = toolbox.keep_result(held, {"documents": [document], "text": NEEDLE * 1000})
    finish(office.lifecycle, held, result=blob)
    assert raw.zrange(results, 0, -1) == [f"{job.id}|{blob}"]
    assert kept < raw.ttl(results) <= kept + 3600
    assert not raw.exists(office.lifecycle.keys("outputs", tenant="acme", document=document))
    assert office.erasures.document("acme", document, actor="key1")["jobs"] == 1
    assert not office.blobs.exists("acme", blob)
    assert not raw.exists(results)
    record = office.lifecycle.get("acme", job.id)
    assert record.problem and record.problem["code"] == "document_erased"
    assert NEEDLE.encode() not in office.dump()
    office.settle()
    with pytest.raises((Erased, Transient)):
        toolbox.keep_result(held, {"documents": [document], "text": NEEDLE * 1000})
    assert not office.blobs.exists("acme", blob)
