"""Bulk runs on the server: the window, pause, retry, cancel, and what a crash leaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from services.blobs import Blobs
from services.documents import Documents
from services.errors import Conflict, NotFound
from services.jobs import Claim, JobType, Lane, Priority, State, Step, Submission
from services.lifecycle import Lifecycle
from services.runs import Run, Runs, RunSubmission
from services.settings import Settings
from tests.conftest import job_index
from tests.integration.test_lifecycle import PROBLEM, claim, events, finish, tidy

__all__ = ["tidy"]  # an autouse fixture

pytestmark = pytest.mark.both_servers

PLAN = (Step("extract", "extract", Lane.EXTRACT), Step("scan", "scan", Lane.ANALYZE))
WORK = Submission("acme", JobType.REVIEW, {"playbook": "x"}, priority=Priority.BULK, plan=PLAN, matter="m-1")


@pytest.fixture
def runs(settings: Settings, lifecycle: Lifecycle) -> Runs:
    small = Lifecycle(settings.model_copy(update={"run_window": 3}), lifecycle.client)
    return Runs(small)


@pytest.fixture
def upload(settings: Settings, lifecycle: Lifecycle) -> Callable[..., list[str]]:
    documents = Documents(lifecycle.client, lifecycle.keys, Blobs(settings.data_dir))

    def put(count: int, matter: str | None = "m-1") -> list[str]:
        names = [f"{matter}-{number}.txt" for number in range(count)]
        return [documents.add("acme", name.encode(), name=name, matter=matter).id for name in names]

    return put


def started(runs: Runs, documents: list[str], **changes: Any) -> Run:
    run, new = runs.submit(RunSubmission("test", WORK, **changes))
    assert new
    runs.add("acme", run.id, documents)
    return runs.seal("acme", run.id)


def end_step(lifecycle: Lifecycle, lane: Lane, outcome: Any = "succeeded", **more: Any) -> Claim | None:
    held = claim(lifecycle, lane)
    if not held:
        return None
    finish(lifecycle, held[0], outcome, **more)
    return held[0]


def work_off(lifecycle: Lifecycle) -> int:
    """End whatever can be claimed; answers how many steps that were."""
    count = 0
    while any(end_step(lifecycle, lane, result="res_x") for lane in (Lane.EXTRACT, Lane.ANALYZE)):
        count += 1
    return count


def test_a_run_goes_through_all_documents_a_window_at_a_time(
    settings: Settings, lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    documents = upload(10)
    run = started(runs, documents)
    assert (run.total, run.active, run.state) == (10, 3, State.WAITING)
    assert sum(count for count, _ in lifecycle.depths().values()) == 3
    held = claim(lifecycle, Lane.EXTRACT)[0]
    assert held.input == {"playbook": "x", "document": documents[0], "name": "m-1-0.txt"}
    assert held.priority is Priority.BULK
    finish(lifecycle, held, result="res_x")
    work_off(lifecycle)
    run = runs.get("acme", run.id)
    assert (run.state, run.succeeded, run.active, run.ended) == (State.SUCCEEDED, 10, 0, 10)
    rows = list(runs.documents("acme", run.id))
    assert [row.document for row in rows] == documents
    assert [row.number for row in rows] == list(range(1, 11))
    assert {(row.state, row.result) for row in rows} == {("succeeded", "res_x")}
    told = events(settings, lifecycle, run.id)
    assert [event.event for event in told] == ["waiting", *["document"] * 10, "succeeded"]
    assert [event.data["succeeded"] for event in told[1:-1]] == list(range(1, 11))
    assert job_index(lifecycle).list("acme").rows == []


def test_what_a_run_never_began_is_shown_as_the_run_ended(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    documents = upload(4)
    run = started(runs, documents)
    raw: Any = lifecycle.client
    assert runs.cancel("acme", run.id).state is State.CANCELLED
    # As runs were kept that were cancelled before what never began was noted document by document.
    raw.hdel(lifecycle.keys("run_items", tenant="acme", id=run.id), documents[3])
    assert [row.state for row in runs.documents("acme", run.id)] == ["cancelled"] * 4


def test_documents_follow_until_the_run_is_sealed(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    run, _ = runs.submit(RunSubmission("open", WORK))
    first, second, third = upload(3)
    runs.add("acme", run.id, [first, first])
    assert runs.add("acme", run.id, [first, second]).total == 2
    work_off(lifecycle)
    assert runs.get("acme", run.id).state is State.WAITING
    with pytest.raises(NotFound):
        runs.add("acme", run.id, [third, "doc_unknown"])
    assert runs.get("acme", run.id).total == 2
    runs.add("acme", run.id, [third])
    assert runs.seal("acme", run.id).state is State.WAITING
    with pytest.raises(Conflict, match="sealed"):
        runs.add("acme", run.id, upload(1, "late"))
    work_off(lifecycle)
    assert runs.get("acme", run.id).state is State.SUCCEEDED
    with pytest.raises(Conflict):
        runs.add("acme", run.id, [third])


def test_a_run_that_is_left_open_is_sealed_after_an_hour(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    raw: Any = lifecycle.client
    run, _ = runs.submit(RunSubmission("open", WORK))
    runs.add("acme", run.id, upload(1))
    work_off(lifecycle)
    lifecycle.care()
    assert not runs.get("acme", run.id).sealed
    raw.zadd(lifecycle.keys("open_runs"), {f"acme|{run.id}": 1})
    lifecycle.care()
    assert runs.get("acme", run.id).state is State.SUCCEEDED


def test_a_pause_begins_nothing_and_loses_nothing(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    run = started(runs, upload(6))
    assert runs.pause("acme", run.id).paused
    assert work_off(lifecycle) == 6
    paused = runs.get("acme", run.id)
    assert (paused.succeeded, paused.active, paused.state, paused.eta_seconds) == (3, 0, State.WAITING, None)
    runs.resume("acme", run.id)
    work_off(lifecycle)
    assert runs.get("acme", run.id).state is State.SUCCEEDED


def test_failed_documents_fail_the_run_by_name_and_a_retry_goes_on_where_they_failed(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    documents = upload(4)
    run = started(runs, documents)
    end_step(lifecycle, Lane.EXTRACT, result="res_text")
    broken = end_step(lifecycle, Lane.ANALYZE, "failed", problem=PROBLEM)
    assert broken
    work_off(lifecycle)
    record = runs.get("acme", run.id)
    assert (record.state, record.failed, record.succeeded) == (State.FAILED, 1, 3)
    assert record.problem and record.problem["code"] == "documents_failed"
    (row,) = [row for row in runs.documents("acme", run.id) if row.state == "failed"]
    assert (row.code, row.document) == (PROBLEM["code"], documents[0])
    assert [job.id for job in job_index(lifecycle).dead_letters("acme").rows] == [row.job]
    again = runs.retry("acme", run.id)
    assert (again.state, again.failed, again.active) == (State.WAITING, 0, 1)
    held = end_step(lifecycle, Lane.ANALYZE, result="res_x")
    assert held and held.id == broken.id and held.attempt > broken.attempt
    assert work_off(lifecycle) == 0, "only the failed step ran again"
    record = runs.get("acme", run.id)
    assert (record.state, record.succeeded, record.problem) == (State.SUCCEEDED, 4, None)
    assert job_index(lifecycle).dead_letters("acme").rows == []


def test_replaying_one_document_reopens_its_run(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    run = started(runs, upload(2))
    end_step(lifecycle, Lane.EXTRACT, "failed", problem=PROBLEM)
    work_off(lifecycle)
    (dead,) = job_index(lifecycle).dead_letters("acme").rows
    lifecycle.replay("acme", dead.id)
    assert runs.get("acme", run.id).state is State.WAITING
    work_off(lifecycle)
    assert runs.get("acme", run.id).succeeded == 2


def test_replaying_one_document_of_a_run_that_was_cancelled_while_open_runs_that_one_alone(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    run, _ = runs.submit(RunSubmission("test", WORK))
    runs.add("acme", run.id, upload(6))
    end_step(lifecycle, Lane.EXTRACT, "failed", problem=PROBLEM)
    assert runs.cancel("acme", run.id).state is State.CANCELLED
    (dead,) = job_index(lifecycle).dead_letters("acme").rows
    lifecycle.replay("acme", dead.id)
    assert work_off(lifecycle) == 2
    ended = runs.get("acme", run.id)
    assert (ended.state, ended.succeeded, ended.cancelled) == (State.FAILED, 1, 5)
    assert [row.state for row in runs.documents("acme", run.id)] == ["succeeded", *["cancelled"] * 5]
    runs.retry("acme", run.id)
    work_off(lifecycle)
    assert runs.get("acme", run.id).succeeded == 6


def test_replaying_a_document_twice_while_its_run_is_paused_runs_it_once(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    run = started(runs, upload(2))
    end_step(lifecycle, Lane.EXTRACT, "failed", problem=PROBLEM)
    runs.pause("acme", run.id)
    (dead,) = job_index(lifecycle).dead_letters("acme").rows
    lifecycle.replay("acme", dead.id)
    assert job_index(lifecycle).dead_letters("acme").rows == []
    lifecycle.replay("acme", dead.id)
    runs.resume("acme", run.id)
    assert work_off(lifecycle) == 4
    ended = runs.get("acme", run.id)
    assert (ended.succeeded, ended.failed) == (2, 0)


def test_a_document_of_a_run_that_is_being_cancelled_is_not_replayed(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    run = started(runs, upload(2))
    end_step(lifecycle, Lane.EXTRACT, "failed", problem=PROBLEM)
    (held,) = claim(lifecycle, Lane.EXTRACT)
    runs.cancel("acme", run.id)
    (dead,) = job_index(lifecycle).dead_letters("acme").rows
    with pytest.raises(Conflict, match="part of a run that is being cancelled"):
        lifecycle.replay("acme", dead.id)
    finish(lifecycle, held, "cancelled")
    assert runs.get("acme", run.id).state is State.CANCELLED


def test_cancelling_a_run_ends_what_waits_and_what_runs_and_a_retry_takes_it_up(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    run = started(runs, upload(8))
    (held,) = claim(lifecycle, Lane.EXTRACT)
    cancelled = runs.cancel("acme", run.id)
    assert (cancelled.state, cancelled.cancelling, cancelled.active) == (State.WAITING, True, 1)
    assert claim(lifecycle, Lane.EXTRACT) == []
    finish(lifecycle, held, "cancelled")
    ended = runs.get("acme", run.id)
    assert (ended.state, ended.cancelled, ended.ended) == (State.CANCELLED, 8, 8)
    assert {row.state for row in runs.documents("acme", run.id)} == {"cancelled"}
    again = runs.retry("acme", run.id)
    assert (again.state, again.cancelled, again.active) == (State.WAITING, 0, 3)
    work_off(lifecycle)
    ended = runs.get("acme", run.id)
    assert (ended.state, ended.succeeded) == (State.SUCCEEDED, 8)


def test_a_deleted_document_is_named_and_the_rest_goes_on(
    settings: Settings, lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    documents = upload(5)
    run = started(runs, documents)
    Documents(lifecycle.client, lifecycle.keys, Blobs(settings.data_dir)).delete("acme", documents[4])
    work_off(lifecycle)
    record = runs.get("acme", run.id)
    assert (record.state, record.succeeded, record.failed) == (State.FAILED, 4, 1)
    assert [row.code for row in runs.documents("acme", run.id)][4] == "document_unknown"


def test_a_run_over_a_matter_takes_the_documents_it_has_when_it_begins(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    upload(2, "other")
    documents = upload(4)
    run, _ = runs.submit(RunSubmission("all", WORK, whole_matter=True))
    assert (run.total, run.sealed) == (4, True)
    work_off(lifecycle)
    assert [row.document for row in runs.documents("acme", run.id)] == documents
    assert runs.get("acme", run.id).state is State.SUCCEEDED


def test_the_same_key_is_the_same_run(runs: Runs, upload: Callable[..., list[str]]) -> None:
    from dataclasses import replace

    upload(1)
    named = RunSubmission("once", replace(WORK, idempotency_key="k", request_hash="1"), whole_matter=True)
    first, new = runs.submit(named)
    second, again = runs.submit(named)
    assert (first.id, new, again) == (second.id, True, False)
    with pytest.raises(Conflict):
        runs.submit(replace(named, work=replace(named.work, request_hash="2")))
    runs.cancel("acme", first.id)


def test_a_crash_of_a_worker_costs_a_document_an_attempt_and_no_more(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    run = started(runs, upload(3))
    (late,) = claim(lifecycle, Lane.EXTRACT)
    lifecycle.care(dead_workers=["w1"])
    work_off(lifecycle)
    assert not finish(lifecycle, late, result="res_late")
    record = runs.get("acme", run.id)
    assert (record.state, record.succeeded) == (State.SUCCEEDED, 3)
    assert {row.result for row in runs.documents("acme", run.id)} == {"res_x"}


def test_a_run_for_later_that_gets_no_documents_ends_an_hour_after_its_time(lifecycle: Lifecycle, runs: Runs) -> None:
    """As where the gateway died once the run was accepted, or nobody adds to one that was left open."""
    raw: Any = lifecycle.client
    begins = time.time() + 7 * 86400
    run, _ = runs.submit(RunSubmission("night", replace(WORK, not_before=begins), documents=3))
    member, opened = f"acme|{run.id}", lifecycle.keys("open_runs")
    assert raw.zscore(opened, member) == pytest.approx(begins + 3600, abs=60)
    raw.zadd(lifecycle.keys("scheduled"), {member: 1})
    lifecycle.care()
    assert runs.get("acme", run.id).state is State.WAITING
    raw.zadd(opened, {member: 1})
    lifecycle.care()
    assert runs.get("acme", run.id).state is State.SUCCEEDED
    assert not raw.exists(lifecycle.keys("live_runs", tenant="acme"), opened)


def test_a_run_for_later_takes_documents_until_an_hour_after_its_time(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    raw: Any = lifecycle.client
    begins = time.time() + 7 * 86400
    run, _ = runs.submit(RunSubmission("night", replace(WORK, not_before=begins)))
    runs.add("acme", run.id, upload(1))
    assert raw.zscore(lifecycle.keys("open_runs"), f"acme|{run.id}") == pytest.approx(begins + 3600, abs=60)
    runs.cancel("acme", run.id)
    assert not raw.exists(lifecycle.keys("open_runs"))
