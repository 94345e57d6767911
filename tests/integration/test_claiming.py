"""Which job a slot gets: urgency, patience, loaded models, reserved seats; and the limits at the door."""

from __future__ import annotations

import time
from typing import Any

import pytest

from services.errors import BacklogFull, Conflict, NotFound
from services.jobs import Choice, Device, JobType, Lane, Priority, State, Submission
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.conftest import job_index, wait_until
from tests.integration.test_lifecycle import CPU, PLAN, PROBLEM, claim, events, finish, submit, tidy

__all__ = ["tidy"]

pytestmark = pytest.mark.both_servers


def backlog_of(lifecycle: Lifecycle, job: str) -> dict[str, str]:
    """The parts that name the backlog of a job."""
    raw: Any = lifecycle.client
    parts = ("lane", "device", "priority", "model")
    values = raw.hmget(lifecycle.keys("job", tenant="acme", id=job), parts)
    return dict(zip(parts, [value or "" for value in values], strict=True)) | {"queue": "usual"}


def back_date(lifecycle: Lifecycle, job: str, seconds: float) -> None:
    """Let a queued job have waited that much longer; its place in the backlog moves with it."""
    raw: Any = lifecycle.client
    name = lifecycle.keys("job", tenant="acme", id=job)
    fields = raw.hgetall(name)
    moved = {field: f"{float(fields[field]) - seconds:.6f}" for field in ("queued", "score")}
    raw.hset(name, mapping=moved)
    backlog = backlog_of(lifecycle, job)
    raw.zadd(lifecycle.keys("backlog", **backlog), {f"acme|{job}": float(moved["score"])})
    raw.zadd(lifecycle.keys("ages", **backlog), {f"acme|{job}": float(moved["queued"])})


def take(lifecycle: Lifecycle, lane: Lane = Lane.GENERATE, worker: str = "w1", **choice: Any) -> str | None:
    claims = lifecycle.work([], lane=lane, devices=CPU, worker=worker, n=1, choice=Choice(**choice))[1]
    return claims[0].id if claims else None


def test_every_eighth_claim_takes_what_has_waited_beyond_its_patience(lifecycle: Lifecycle) -> None:
    old = submit(lifecycle, priority=Priority.BULK)
    back_date(lifecycle, old, 6 * 3600)
    urgent = [submit(lifecycle, priority=Priority.HIGH) for _ in range(20)]
    order = [take(lifecycle) for _ in range(21)]
    assert order.index(old) == 7
    assert [job for job in order if job != old] == urgent


def test_the_eighth_claim_of_several_takes_it_too(lifecycle: Lifecycle) -> None:
    """Whatever the claims before have taken along: a turn is a claim's, and none is used up without taking it."""
    small: dict[str, Any] = {"type": JobType.COMPARE, "cost": 0.5}
    old = submit(lifecycle, priority=Priority.BULK, **small)
    back_date(lifecycle, old, 6 * 3600)
    for _ in range(60):
        submit(lifecycle, priority=Priority.HIGH, **small)
    claims = [[one.id for one in claim(lifecycle, Lane.ANALYZE, 4)] for _ in range(9)]
    assert [len(ids) for ids in claims] == [4] * 7 + [1, 4]
    assert claims[7] == [old]


def test_what_waits_within_its_patience_stays_behind(lifecycle: Lifecycle) -> None:
    young = submit(lifecycle, priority=Priority.BULK)
    for _ in range(20):
        submit(lifecycle, priority=Priority.HIGH)
    assert [take(lifecycle) for _ in range(21)].index(young) == 20


def test_critical_work_is_never_behind_an_aged_backlog(lifecycle: Lifecycle) -> None:
    for _ in range(30):
        back_date(lifecycle, submit(lifecycle, priority=Priority.BULK), 6 * 3600)
    for _ in range(7):
        take(lifecycle)
    critical = [submit(lifecycle, priority=Priority.CRITICAL) for _ in range(20)]
    assert [take(lifecycle) for _ in range(20)] == critical


def test_a_slot_prefers_a_loaded_model_among_equals_but_not_for_ever(lifecycle: Lifecycle) -> None:
    models = {"loaded": True, "cold": False}
    cold = submit(lifecycle, model="cold")
    warm = [submit(lifecycle, model="loaded") for _ in range(2)]
    assert take(lifecycle, models=models) == warm[0]
    back_date(lifecycle, cold, 31)
    assert take(lifecycle, models=models) == cold


def test_a_slot_leaves_what_its_worker_cannot_load(lifecycle: Lifecycle) -> None:
    """However much of it there is: a model may be away for days."""
    elsewhere = Submission("acme", JobType.GENERATE, {"prompt": "hi"}, model="elsewhere")
    lifecycle.submit_each([elsewhere] * 1100)
    here = submit(lifecycle, model="here")
    assert take(lifecycle, models={"here": False}) == here
    assert take(lifecycle, models={"here": False}) is None


def test_the_oldest_that_can_run_here_is_found_behind_what_cannot(lifecycle: Lifecycle) -> None:
    for _ in range(10):
        back_date(lifecycle, submit(lifecycle, model="elsewhere", priority=Priority.BULK), 7 * 3600)
    old = submit(lifecycle, model="here", priority=Priority.BULK)
    back_date(lifecycle, old, 6 * 3600)
    urgent = [submit(lifecycle, priority=Priority.HIGH) for _ in range(8)]
    assert [take(lifecycle, models={"here": False}) for _ in range(9)] == [*urgent[:7], old, urgent[7]]


def test_a_loaded_model_passes_by_a_few_jobs_only(lifecycle: Lifecycle) -> None:
    """Whatever waits for a model that is not here counts for nothing among them."""
    models = {"loaded": True, "cold": False}
    for _ in range(10):
        submit(lifecycle, model="elsewhere")
    cold = [submit(lifecycle, model="cold") for _ in range(8)]
    warm = submit(lifecycle, model="loaded")
    assert [take(lifecycle, models=models) for _ in range(2)] == [cold[0], warm]


def test_a_reserved_seat_takes_urgent_work_only(lifecycle: Lifecycle) -> None:
    submit(lifecycle, priority=Priority.NORMAL)
    assert take(lifecycle, ranks=2) is None
    high = submit(lifecycle, priority=Priority.HIGH)
    assert take(lifecycle, ranks=2) == high


def test_a_claim_may_take_a_batch(lifecycle: Lifecycle) -> None:
    jobs = [submit(lifecycle, type=JobType.EMBED, input={"texts": ["x"]}) for _ in range(10)]
    assert [held.id for held in claim(lifecycle, Lane.EMBED, n=8)] == jobs[:8]


def test_a_long_job_shares_no_claim(lifecycle: Lifecycle) -> None:
    """Others of its claim would wait behind it, in a slot of their own, until it ends."""
    costs = [0.5, 1.0, 1.1, 1.0, 30.0, 30.0, 1.0]
    jobs = [submit(lifecycle, type=JobType.DUPLICATES, input={"matter": "m"}, cost=cost) for cost in costs]
    held = [[job.id for job in claim(lifecycle, Lane.ANALYZE, n=4)] for _ in range(6)]
    assert held == [jobs[:2], jobs[2:3], jobs[3:4], jobs[4:5], jobs[5:6], jobs[6:]]


def test_what_a_claim_leaves_moves_no_virtual_time(lifecycle: Lifecycle) -> None:
    """A job that comes meanwhile starts where that did which was taken last, before what was only seen."""
    first, long = [submit(lifecycle, type=JobType.COMPARE, cost=cost) for cost in (0.5, 30.0)]
    assert [job.id for job in claim(lifecycle, Lane.ANALYZE, n=4)] == [first]
    other = submit(lifecycle, tenant="other", type=JobType.COMPARE)
    assert [job.id for _ in range(2) for job in claim(lifecycle, Lane.ANALYZE, n=4)] == [other, long]


def test_jobs_of_different_urgency_share_no_claim(lifecycle: Lifecycle) -> None:
    ranks = (Priority.CRITICAL, Priority.CRITICAL, Priority.BULK, Priority.BULK)
    jobs = [submit(lifecycle, type=JobType.COMPARE, priority=priority) for priority in ranks]
    assert [[job.id for job in claim(lifecycle, Lane.ANALYZE, n=4)] for _ in range(2)] == [jobs[:2], jobs[2:]]


def test_the_limits_of_a_tenant_hold_and_are_given_back(settings: Settings, lifecycle: Lifecycle) -> None:
    small = Lifecycle(
        settings.model_copy(update={"max_tenant_backlog": 2, "max_tenant_backlog_bytes": 200}), lifecycle.client
    )
    first = submit(small)
    submit(small)
    with pytest.raises(BacklogFull):
        submit(small)
    submit(small, tenant="other")
    small.cancel("acme", first)
    submit(small)
    with pytest.raises(BacklogFull, match="bytes"):
        submit(small, tenant="third", input={"prompt": "x" * 300})
    while claim(small):
        pass
    assert small.client.hgetall(small.keys("waiting")) == {}


def test_a_job_does_not_start_before_its_time(lifecycle: Lifecycle) -> None:
    now = time.time()
    job = submit(lifecycle, not_before=now + 0.5)
    parent = submit(lifecycle, type=JobType.REVIEW, plan=PLAN, not_before=now + 0.5)
    assert lifecycle.get("acme", job).state is State.SCHEDULED
    assert lifecycle.care()[1] == 0
    assert claim(lifecycle) == []
    wait_until(lambda: lifecycle.care()[1], what="the time")
    wait_until(lambda: lifecycle.care()[1] or lifecycle.get("acme", parent).state is State.WAITING)
    assert claim(lifecycle)[0].id == job
    assert claim(lifecycle, Lane.EXTRACT)[0].parent == parent


def test_a_job_that_is_too_late_expires_wherever_it_is(settings: Settings, lifecycle: Lifecycle) -> None:
    soon = time.time() + 0.3
    running = submit(lifecycle, expires_at=soon)
    (held,) = claim(lifecycle)
    queued = submit(lifecycle, expires_at=soon)
    parent = submit(lifecycle, type=JobType.REVIEW, plan=PLAN, expires_at=soon)
    done = submit(lifecycle, type=JobType.EMBED, expires_at=soon)
    finish(lifecycle, claim(lifecycle, Lane.EMBED)[0])
    wait_until(lambda: lifecycle.care() and lifecycle.get("acme", queued).state is State.EXPIRED)
    assert lifecycle.get("acme", parent).state is State.EXPIRED
    assert lifecycle.get("acme", done).state is State.SUCCEEDED
    assert lifecycle.renew([held.member], []) == {held.member: "cancel"}
    finish(lifecycle, held, "cancelled")
    assert lifecycle.get("acme", running).state is State.EXPIRED
    assert [event.event for event in events(settings, lifecycle, running)] == ["queued", "running", "expired"]


def test_a_dead_letter_is_replayed_once(settings: Settings, lifecycle: Lifecycle) -> None:
    job = submit(lifecycle)
    finish(lifecycle, claim(lifecycle)[0], "failed", problem=PROBLEM)
    assert [letter.id for letter in job_index(lifecycle).dead_letters("acme").rows] == [job]
    lifecycle.replay("acme", job)
    assert job_index(lifecycle).dead_letters("acme").rows == []
    with pytest.raises(Conflict):
        lifecycle.replay("acme", job)
    (held,) = claim(lifecycle)
    assert held.id == job
    assert lifecycle.get("acme", job).attempt == 1
    finish(lifecycle, held, result="res_1")
    assert lifecycle.get("acme", job).problem is None
    assert [event.event for event in events(settings, lifecycle, job)] == ["queued", "running", "succeeded"]
    with pytest.raises(Conflict):
        lifecycle.replay("acme", job)
    with pytest.raises(NotFound):
        lifecycle.replay("acme", "job_none")


def test_a_replayed_parent_goes_on_with_the_step_that_ended_it(lifecycle: Lifecycle) -> None:
    parent = submit(lifecycle, type=JobType.REVIEW, plan=PLAN)
    finish(lifecycle, claim(lifecycle, Lane.EXTRACT)[0], result="res_text")
    finish(lifecycle, claim(lifecycle, Lane.ANALYZE)[0], "failed", problem=PROBLEM)
    assert [letter.id for letter in job_index(lifecycle).dead_letters("acme").rows] == [parent]
    with pytest.raises(Conflict, match="parent"):
        lifecycle.replay("acme", f"{parent}.scan")
    lifecycle.replay("acme", parent)
    assert claim(lifecycle, Lane.EXTRACT) == []
    (held,) = claim(lifecycle, Lane.ANALYZE)
    assert held.outputs == {"extract": "res_text"}
    finish(lifecycle, held, result="res_all")
    assert lifecycle.get("acme", parent).result == "res_all"


def test_device_classes_share_one_order(lifecycle: Lifecycle) -> None:
    jobs = [submit(lifecycle, device=device) for device in (Device.CPU, Device.ANY, Device.CPU)]
    assert [take(lifecycle) for _ in jobs] == jobs


def lose(lifecycle: Lifecycle, worker: str, n: int = 1) -> list[str]:
    """A worker claims, in the lane analyze, until nothing is left for it, and dies; answers what it took along."""
    taken: list[str] = []
    while held := lifecycle.work([], lane=Lane.ANALYZE, devices=CPU, worker=worker, n=n)[1]:
        taken += [claim.id for claim in held]
    lifecycle.care(dead_workers=[worker])
    return taken


@pytest.mark.parametrize("n", [1, 4])
def test_what_is_lost_with_its_worker_twice_is_tried_alone(lifecycle: Lifecycle, n: int) -> None:
    jobs = [submit(lifecycle, type=JobType.COMPARE) for _ in range(6)]
    assert lose(lifecycle, "w1", n) == jobs
    assert lose(lifecycle, "w1", n) == jobs
    fresh = submit(lifecycle, type=JobType.COMPARE)
    poison = jobs[0]
    assert lose(lifecycle, "w1", n) == [poison, fresh]
    record = lifecycle.get("acme", poison)
    assert record.problem and (record.problem["code"], "3 times" in record.problem["detail"]) == ("worker_lost", True)
    done: list[str] = []
    while held := claim(lifecycle, Lane.ANALYZE, n=n):
        assert len([one for one in held if one.id in jobs]) <= 1
        done += [one.id for one in held if finish(lifecycle, one, result="res_1")]
    assert sorted(done) == sorted([*jobs[1:], fresh])


def test_a_suspect_waits_for_another_worker_and_holds_nothing_up(lifecycle: Lifecycle) -> None:
    jobs = [submit(lifecycle, type=JobType.COMPARE) for _ in range(3)]
    lose(lifecycle, "w1")
    lose(lifecycle, "w1")
    fresh = submit(lifecycle, type=JobType.COMPARE)
    assert take(lifecycle, Lane.ANALYZE, suspects=False) == fresh, "a worker that may end soon tries none"
    assert take(lifecycle, Lane.ANALYZE, suspects=False) is None
    assert [take(lifecycle, Lane.ANALYZE, worker) for worker in ("w1", "w1", "w2", "w2")] == [
        jobs[0], None, jobs[1], None,
    ]  # fmt: skip
    assert lifecycle.depths()[Lane.ANALYZE, Device.ANY, Priority.NORMAL][0] == 1
    assert lifecycle.position(lifecycle.get("acme", jobs[2])) == 0
    lifecycle.care(dead_workers=["w2"])
    assert take(lifecycle, Lane.ANALYZE, "w2") == jobs[2]


def test_no_crash_fails_a_job_for_what_it_ran_beside(lifecycle: Lifecycle) -> None:
    """Two passing failures and a crash beside others are three tries and no reason to give up."""
    job = submit(lifecycle, type=JobType.COMPARE)
    for _ in range(2):
        finish(lifecycle, claim(lifecycle, Lane.ANALYZE)[0], "retry", problem=PROBLEM, retry_after=0)
        wait_until(lambda: lifecycle.care()[1], what="the retry")
    lose(lifecycle, "w1")
    assert lifecycle.get("acme", job).state is State.QUEUED
    assert finish(lifecycle, claim(lifecycle, Lane.ANALYZE)[0], result="res_1")


def test_a_replayed_job_is_no_suspect_any_more(lifecycle: Lifecycle) -> None:
    job = submit(lifecycle, type=JobType.COMPARE)
    for _ in range(3):
        lose(lifecycle, "w1")
    lifecycle.replay("acme", job)
    assert take(lifecycle, Lane.ANALYZE, suspects=False) == job


def test_who_used_an_idle_system_is_not_behind_those_who_come_later(lifecycle: Lifecycle) -> None:
    for _ in range(50):
        submit(lifecycle, tenant="alone", cost=10.0)
        finish(lifecycle, claim(lifecycle)[0])
    for _ in range(30):
        submit(lifecycle, tenant="bulk", cost=10.0)
    mine = submit(lifecycle, tenant="alone", cost=10.0)
    assert mine in [take(lifecycle) for _ in range(3)]


def test_the_oldest_is_found_wherever_its_turn_is(lifecycle: Lifecycle) -> None:
    """By the rule of patience, and by who looks how long jobs wait."""
    for _ in range(30):
        submit(lifecycle)
    old = submit(lifecycle)
    raw: Any = lifecycle.client
    ages = lifecycle.keys("ages", **backlog_of(lifecycle, old))
    raw.zadd(ages, {f"acme|{old}": raw.zscore(ages, f"acme|{old}") - 3600})
    assert lifecycle.depths()[Lane.GENERATE, Device.ANY, Priority.NORMAL][1] >= 3600
    assert [take(lifecycle) for _ in range(8)][7] == old
