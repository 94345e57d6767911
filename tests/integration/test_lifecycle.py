"""Every transition of a job on a real server: one script each, one terminal event each."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.errors import BacklogFull, Conflict, NotFound
from services.events import Event, follow
from services.jobs import Claim, Completion, Device, JobType, Lane, Priority, State, Step, Submission
from services.lifecycle import Lifecycle
from services.scripts import pairs
from services.settings import Settings
from services.streams import Streams
from tests.conftest import job_index, wait_until

pytestmark = pytest.mark.both_servers

CPU = (Device.CPU, Device.ANY)
PROBLEM = {"type": "urn:x", "title": "x", "status": 500, "code": "broken", "detail": "x", "retryable": True}


def submit(lifecycle: Lifecycle, **changes: Any) -> str:
    values: dict[str, Any] = {"tenant": "acme", "type": JobType.GENERATE, "input": {"prompt": "hi"}} | changes
    return lifecycle.submit(Submission(**values))[0].id


def claim(
    lifecycle: Lifecycle, lane: Lane = Lane.GENERATE, n: int = 1, devices: tuple[Device, ...] = CPU
) -> list[Claim]:
    return lifecycle.work([], lane=lane, devices=devices, worker="w1", n=n)[1]


def finish(lifecycle: Lifecycle, claim: Claim, outcome: Any = "succeeded", **changes: Any) -> bool:
    completion = Completion(claim, outcome, **changes)
    return bool(lifecycle.work([completion], lane=claim.lane, devices=CPU, worker="w1", n=0)[0][0])


def events(settings: Settings, lifecycle: Lifecycle, job: str, after: str = "0") -> list[Event]:
    async def read() -> list[Event]:
        streams = Streams(settings)
        stream = follow(streams, lifecycle.keys, "acme", job, records=lifecycle.records, after=after, idle_seconds=1)
        found = [event async for event in stream if event]
        await streams.aclose()
        return found

    return asyncio.run(read())


def test_a_job_lives_from_submission_to_its_one_terminal_event(settings: Settings, lifecycle: Lifecycle) -> None:
    job = submit(lifecycle)
    assert lifecycle.get("acme", job).state is State.QUEUED
    (held,) = claim(lifecycle)
    assert (held.id, held.attempt, held.input) == (job, 1, {"prompt": "hi"})
    assert lifecycle.get("acme", job).state is State.RUNNING
    assert finish(lifecycle, held, result="res_1")
    record = lifecycle.get("acme", job)
    assert (record.state, record.result) == (State.SUCCEEDED, "res_1")
    assert record.created <= record.started <= record.finished
    assert [event.event for event in events(settings, lifecycle, job)] == ["queued", "running", "succeeded"]


def test_a_second_end_of_the_same_attempt_does_not_count(lifecycle: Lifecycle) -> None:
    submit(lifecycle)
    (held,) = claim(lifecycle)
    assert finish(lifecycle, held, result="res_1")
    assert not finish(lifecycle, held, result="res_2")
    assert lifecycle.get("acme", held.id).result == "res_1"


def test_urgent_work_is_claimed_first_and_equals_in_order(lifecycle: Lifecycle) -> None:
    ids = {priority: [submit(lifecycle, priority=priority) for _ in range(2)] for priority in reversed(Priority)}
    claimed = [held.id for _ in Priority for held in claim(lifecycle, n=10)]
    assert claimed == [job for priority in Priority for job in ids[priority]]
    for held in claimed:
        lifecycle.cancel("acme", held)
    release_all(lifecycle)


def release_all(lifecycle: Lifecycle) -> None:
    """Ends what the test left open, so that the leak check sees a quiet installation."""
    raw: Any = lifecycle.client
    for member in raw.zrange(lifecycle.keys("leases"), 0, -1):
        tenant, job, _ = member.split("|")
        lifecycle.cancel(tenant, job)
    lifecycle.care(dead_workers=["w1", "w2"])
    for lane in Lane:
        for device in Device:
            lifecycle.client.delete(lifecycle.keys("tickets", queue=f"{lane}.{device}"))
    for kind in ("backlog:", "backlogs:", "ages:"):
        for name in list(raw.scan_iter(f"{lifecycle.keys.prefix}{kind}*")):
            raw.delete(name)
    raw.delete(*(lifecycle.keys(name) for name in ("waiting", "expiries")))
    raw.delete(*[lifecycle.keys("clock", lane=lane, priority=priority) for lane in Lane for priority in Priority])


@pytest.fixture(autouse=True)
def tidy(lifecycle: Lifecycle) -> Any:
    yield
    release_all(lifecycle)
    raw: Any = lifecycle.client
    for name in raw.scan_iter(f"{lifecycle.keys.prefix}job:*"):
        if raw.ttl(name) == -1:
            fields = raw.hgetall(name)
            lifecycle.cancel(fields["tenant"], fields["id"])
    lifecycle.care(dead_workers=["w1", "w2"])


def test_jobs_that_nobody_counted_when_they_came_are_not_taken_off(lifecycle: Lifecycle) -> None:
    raw: Any = lifecycle.client
    submit(lifecycle)
    raw.delete(lifecycle.keys("waiting"))  # as before there was this counter
    (held,) = claim(lifecycle)
    assert raw.hgetall(lifecycle.keys("waiting")) == {}
    finish(lifecycle, held)


def test_a_tenants_backlog_does_not_stand_before_another_tenants_job(lifecycle: Lifecycle) -> None:
    for _ in range(20):
        submit(lifecycle, tenant="greedy", cost=0.5)
    modest = submit(lifecycle, tenant="modest", cost=0.5)
    order = [held.id for held in claim(lifecycle, n=21)]
    assert order.index(modest) <= 1


def test_device_classes_are_kept_apart(lifecycle: Lifecycle) -> None:
    gpu = submit(lifecycle, device=Device.GPU)
    anywhere = submit(lifecycle, device=Device.ANY)
    assert [held.id for held in claim(lifecycle, n=5)] == [anywhere]
    assert [held.id for held in claim(lifecycle, n=5, devices=(Device.GPU, Device.ANY))] == [gpu]


def test_tickets_wait_for_waiting_jobs_and_are_bounded(lifecycle: Lifecycle) -> None:
    for _ in range(100):
        submit(lifecycle)
    assert lifecycle.client.llen(lifecycle.keys("tickets", queue="generate.any")) == 64


def test_lost_tickets_are_written_again(lifecycle: Lifecycle) -> None:
    submit(lifecycle)
    lifecycle.client.delete(lifecycle.keys("tickets", queue="generate.any"))
    assert lifecycle.care()[2] == 1
    assert lifecycle.care()[2] == 0


def test_records_that_are_gone_leave_the_lists_behind_however_many_old_ones_that_live(lifecycle: Lifecycle) -> None:
    raw: Any = lifecycle.client
    index = lifecycle.keys("jobs", tenant="acme")
    alive = [lifecycle.submit(Submission("acme", JobType.GENERATE, {}))[0].id for _ in range(501)]
    raw.zadd(index, dict.fromkeys(alive, 1) | {"job_gone": 2})
    wait_until(lambda: lifecycle.care() and raw.zscore(index, "job_gone") is None, what="the trim")
    assert raw.zcard(index) == 501


def test_a_crashed_workers_job_runs_again_and_its_late_result_is_discarded(
    settings: Settings, lifecycle: Lifecycle
) -> None:
    short = Lifecycle(settings.model_copy(update={"lease_seconds": 0.3}), lifecycle.client)
    job = submit(short)
    (first,) = claim(short)
    wait_until(lambda: short.care()[0], what="the lease to run out")
    (second,) = claim(short)
    assert (second.id, second.attempt) == (job, 2)
    assert not finish(short, first, result="res_stale")
    assert finish(short, second, result="res_good")
    assert short.get("acme", job).result == "res_good"
    assert short.counters()["extra_executions"] == 1
    names = [event.event for event in events(settings, short, job)]
    assert names == ["queued", "running", "queued", "running", "succeeded"]


def test_a_dead_workers_leases_are_reaped_at_once(lifecycle: Lifecycle) -> None:
    job = submit(lifecycle)
    claim(lifecycle)
    assert lifecycle.care()[0] == 0
    assert lifecycle.care(dead_workers=["w1"])[0] == 1
    assert lifecycle.get("acme", job).state is State.QUEUED


def test_a_renewed_lease_does_not_run_out(settings: Settings, lifecycle: Lifecycle) -> None:
    short = Lifecycle(settings.model_copy(update={"lease_seconds": 0.4}), lifecycle.client)
    submit(short)
    (held,) = claim(short)
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        assert short.renew([held.member], []) == {}
        assert short.care()[0] == 0
        time.sleep(0.1)
    wait_until(lambda: short.care()[0], what="the lease to run out without renewals")
    assert short.renew([held.member], []) == {held.member: "lost"}
    (other,) = claim(short)
    assert short.renew([held.member, other.member], []) == {held.member: "lost"}


def test_three_crashes_make_a_dead_letter(settings: Settings, lifecycle: Lifecycle) -> None:
    job = submit(lifecycle)
    for _ in range(3):
        claim(lifecycle)
        lifecycle.care(dead_workers=["w1"])
    record = lifecycle.get("acme", job)
    assert record.state is State.FAILED
    assert record.problem and record.problem["code"] == "worker_lost"
    raw: Any = lifecycle.client
    assert raw.zrange(lifecycle.keys("dead", tenant="acme"), 0, -1) == [job]


def test_a_transient_failure_is_retried_when_due_and_fails_after_three(lifecycle: Lifecycle) -> None:
    job = submit(lifecycle)
    for attempt in (1, 2):
        (held,) = claim(lifecycle)
        assert held.attempt == attempt
        finish(lifecycle, held, "retry", problem=PROBLEM, retry_after=0.05)
        assert lifecycle.get("acme", job).state is State.SCHEDULED
        wait_until(lambda: lifecycle.care()[1], what="the retry")
    (held,) = claim(lifecycle)
    finish(lifecycle, held, "retry", problem=PROBLEM, retry_after=0.05)
    assert lifecycle.get("acme", job).state is State.FAILED


def test_a_released_job_returns_without_counting_an_attempt(lifecycle: Lifecycle) -> None:
    job = submit(lifecycle)
    (held,) = claim(lifecycle)
    finish(lifecycle, held, "released")
    assert lifecycle.get("acme", job).attempt == 0
    (again,) = claim(lifecycle)
    assert lifecycle.get("acme", job).attempt == 1
    assert not finish(lifecycle, held, "released"), "a repeat of the hand-back must not touch the next attempt"
    assert finish(lifecycle, again, result="res_1")


def test_cancelling(settings: Settings, lifecycle: Lifecycle) -> None:
    queued = submit(lifecycle)
    assert lifecycle.cancel("acme", queued) == "cancelled"
    assert claim(lifecycle) == []
    running = submit(lifecycle)
    (held,) = claim(lifecycle)
    assert lifecycle.cancel("acme", running) == "cancelling"
    assert lifecycle.renew([held.member], []) == {held.member: "cancel"}
    finish(lifecycle, held, "cancelled")
    assert lifecycle.get("acme", running).state is State.CANCELLED
    assert lifecycle.cancel("acme", running) == "cancelled"
    assert [event.event for event in events(settings, lifecycle, running)][-1] == "cancelled"
    with pytest.raises(NotFound):
        lifecycle.cancel("acme", "job_none")
    with pytest.raises(NotFound):
        lifecycle.cancel("other", running)


PLAN = (Step("extract", "extract", Lane.EXTRACT), Step("scan", "scan", Lane.ANALYZE))


def test_a_parent_runs_its_steps_and_takes_the_last_result(settings: Settings, lifecycle: Lifecycle) -> None:
    parent = submit(lifecycle, type=JobType.REVIEW, plan=PLAN, priority=Priority.HIGH)
    assert lifecycle.get("acme", parent).state is State.WAITING
    (extract,) = claim(lifecycle, Lane.EXTRACT)
    assert (extract.parent, extract.step, extract.priority) == (parent, "extract", Priority.HIGH)
    assert claim(lifecycle, Lane.ANALYZE) == []
    finish(lifecycle, extract, result="res_text")
    (scan,) = claim(lifecycle, Lane.ANALYZE)
    assert scan.outputs == {"extract": "res_text"}
    lifecycle.append(scan, "progress", {"done": 1})
    finish(lifecycle, scan, result="res_all")
    record = lifecycle.get("acme", parent)
    assert (record.state, record.result) == (State.SUCCEEDED, "res_all")
    seen = [
        (event.event, event.data.get("step"), event.data.get("state")) for event in events(settings, lifecycle, parent)
    ]
    assert seen == [
        ("waiting", None, "waiting"),
        ("step", "extract", "queued"),
        ("step", "extract", "running"),
        ("step", "extract", "succeeded"),
        ("step", "scan", "queued"),
        ("step", "scan", "running"),
        ("progress", None, None),
        ("step", "scan", "succeeded"),
        ("succeeded", None, "succeeded"),
    ]


@pytest.mark.parametrize("moment", ["queued", "running"])
def test_cancelling_a_parent_reaches_its_step(lifecycle: Lifecycle, moment: str) -> None:
    parent = submit(lifecycle, type=JobType.REVIEW, plan=PLAN)
    if moment == "queued":
        assert lifecycle.cancel("acme", parent) == "cancelled"
    else:
        (held,) = claim(lifecycle, Lane.EXTRACT)
        assert lifecycle.cancel("acme", parent) == "cancelling"
        finish(lifecycle, held, "succeeded", result="res_1")
    assert lifecycle.get("acme", parent).state is State.CANCELLED
    assert claim(lifecycle, Lane.ANALYZE) == []


def test_a_failed_step_fails_its_parent_with_the_same_problem(lifecycle: Lifecycle) -> None:
    parent = submit(lifecycle, type=JobType.REVIEW, plan=PLAN)
    (held,) = claim(lifecycle, Lane.EXTRACT)
    finish(lifecycle, held, "failed", problem=PROBLEM)
    record = lifecycle.get("acme", parent)
    assert (record.state, record.problem) == (State.FAILED, PROBLEM)


def test_the_feed_of_a_tenant_has_the_code_of_a_failure_and_not_its_detail(lifecycle: Lifecycle) -> None:
    raw: Any = lifecycle.client
    submit(lifecycle)
    (held,) = claim(lifecycle)
    finish(lifecycle, held, "failed", problem=PROBLEM | {"detail": "it says Zymurgy Holdings"})
    feed = raw.xrange(lifecycle.keys("tenant_events", tenant="acme"))
    assert json.loads(feed[-1][1]["data"])["problem"] == {"code": "broken"}
    assert "Zymurgy" not in str(feed)


def test_fifty_equal_submissions_at_once_make_one_job(lifecycle: Lifecycle) -> None:
    def one(_: int) -> tuple[str, bool]:
        job, new = lifecycle.submit(Submission("acme", JobType.EMBED, {"texts": ["x"]}, idempotency_key="same"))
        return job.id, new

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(50)))
    assert len({job for job, _ in answers}) == 1
    assert sum(new for _, new in answers) == 1
    with pytest.raises(Conflict):
        lifecycle.submit(Submission("acme", JobType.EMBED, {"texts": ["y"]}, idempotency_key="same"))


def test_a_submission_that_is_sent_again_after_its_answer_was_lost_is_the_same_job(lifecycle: Lifecycle) -> None:
    """The client of Redis repeats a command whose connection broke, in the very words."""
    _, argument = lifecycle._acceptance(Submission("acme", JobType.GENERATE, {"prompt": "hi"}))
    job = argument["fields"]["id"]
    for _ in range(2):
        verdict, record = lifecycle.scripts.run("submit", argument)
        assert (verdict, pairs(record)["state"]) == ("accepted", "queued")
    assert [row.id for row in job_index(lifecycle).list("acme").rows] == [job]
    assert [held.id for held in claim(lifecycle, n=2)] == [job]
    assert lifecycle.counters()["jobs.submitted"] == 1


def test_a_full_lane_refuses_and_queues_nothing(settings: Settings, lifecycle: Lifecycle) -> None:
    small = Lifecycle(settings.model_copy(update={"max_backlog": 3}), lifecycle.client)
    for _ in range(3):
        submit(small)
    with pytest.raises(BacklogFull):
        submit(small)
    assert len(job_index(small).list("acme").rows) == 3


def test_position_counts_what_is_claimed_before(lifecycle: Lifecycle) -> None:
    low = submit(lifecycle, priority=Priority.LOW)
    for _ in range(3):
        submit(lifecycle, priority=Priority.HIGH)
    assert lifecycle.position(lifecycle.get("acme", low)) == 3


def test_events_resume_after_an_id(settings: Settings, lifecycle: Lifecycle) -> None:
    job = submit(lifecycle)
    (held,) = claim(lifecycle)
    lifecycle.append(held, "token", {"text": "one"})
    lifecycle.append(held, "token", {"text": "two"})
    finish(lifecycle, held, result="res_1")
    everything = events(settings, lifecycle, job)
    assert events(settings, lifecycle, job, after=everything[2].id) == everything[3:]
    assert not lifecycle.append(held, "token", {"text": "late"})
