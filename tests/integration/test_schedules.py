"""Schedules on the server: one run for each due time, pauses, and what is asked for while a schedule is removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.errors import Conflict, NotFound
from services.lifecycle import Lifecycle
from services.recurrence import Missed, Recurrence
from services.runs import Runs
from services.schedules import Schedules
from tests.integration.test_runs import WORK, runs, tidy, upload

__all__ = ["runs", "tidy", "upload"]  # fixtures

pytestmark = pytest.mark.both_servers


def test_each_due_time_makes_one_run_whoever_looks(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    raw: Any = lifecycle.client
    upload(2)
    schedules, others = Schedules(lifecycle), Schedules(lifecycle)
    rule = Recurrence(zone="Europe/London", start=schedules.now(), cron="0 * * * *")
    kept = schedules.add("hourly", rule, Missed.ONCE, WORK)
    assert schedules.fire() == 0
    due = int(schedules.now()) // 3600 * 3600
    raw.hset(lifecycle.keys("schedule", tenant="acme", id=kept.id), "next", str(due))
    raw.zadd(lifecycle.keys("schedules"), {f"acme|{kept.id}": due})
    stale = others.get("acme", kept.id)
    assert schedules.fire() == 1
    with pytest.raises(Conflict):  # another caretaker that looked before the first one fired
        others._fire(stale, schedules.now())
    assert schedules.fire() == 0
    (run,) = runs.list("acme", schedule=kept.id).rows
    assert (run.due, run.total, run.name) == (due, 2, "hourly")
    kept = schedules.get("acme", kept.id)
    assert (kept.last_run, kept.last_due, kept.next_due) == (run.id, due, due + 3600)
    runs.cancel("acme", run.id)
    schedules.remove("acme", kept.id)
    assert schedules.list("acme").rows == []
    assert not raw.exists(lifecycle.keys("schedules"))


def test_a_pause_of_a_schedule_is_no_missed_time(lifecycle: Lifecycle) -> None:
    raw: Any = lifecycle.client
    schedules = Schedules(lifecycle)
    kept = schedules.add("daily", Recurrence(zone="UTC", start=schedules.now(), cron="0 3 * * *"), Missed.ALL, WORK)
    assert schedules.pause("acme", kept.id).next_times(3) == []
    # As if it had been made, and paused, days ago.
    raw.hset(lifecycle.keys("schedule", tenant="acme", id=kept.id), "created", str(kept.created - 3 * 86400))
    resumed = schedules.resume("acme", kept.id)
    assert resumed.next_due == kept.next_due
    assert schedules.fire() == 0
    schedules.remove("acme", kept.id)


@pytest.mark.parametrize("change", ["pause", "resume"])
def test_a_schedule_that_is_removed_while_it_is_changed_stays_removed(
    lifecycle: Lifecycle, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules = Schedules(lifecycle)
    kept = schedules.add("daily", Recurrence(zone="UTC", start=schedules.now(), cron="0 3 * * *"), Missed.ONCE, WORK)
    if change == "resume":
        schedules.pause("acme", kept.id)
    steer = schedules._steer

    def removed_before_it_is_written(*change: Any) -> None:
        Schedules(lifecycle).remove("acme", kept.id)
        steer(*change)

    monkeypatch.setattr(schedules, "_steer", removed_before_it_is_written)
    with pytest.raises(NotFound):
        getattr(schedules, change)("acme", kept.id)
    raw: Any = lifecycle.client
    assert not raw.exists(
        lifecycle.keys("schedule", tenant="acme", id=kept.id),
        lifecycle.keys("schedules"),
        lifecycle.keys("tenant_schedules", tenant="acme"),
    )


def test_a_resume_that_comes_late_fires_no_time_again(lifecycle: Lifecycle) -> None:
    schedules = Schedules(lifecycle)
    kept = schedules.add("daily", Recurrence(zone="UTC", start=schedules.now(), cron="0 3 * * *"), Missed.ONCE, WORK)
    schedules.pause("acme", kept.id)
    again = schedules.resume("acme", kept.id).next_due
    schedules._steer("acme", kept.id, "", 1)  # of another who asked for it too, worked out before
    assert schedules.get("acme", kept.id).next_due == again
    schedules.remove("acme", kept.id)


def test_a_schedule_that_cannot_be_read_keeps_no_other_from_firing(
    lifecycle: Lifecycle, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    raw: Any = lifecycle.client
    upload(1)
    schedules = Schedules(lifecycle)
    due = int(schedules.now()) - 60
    for number in range(2):
        rule = Recurrence(zone="UTC", start=schedules.now(), cron="0 3 * * *")
        kept = schedules.add(str(number), rule, Missed.ONCE, WORK)
        raw.hset(lifecycle.keys("schedule", tenant="acme", id=kept.id), "next", str(due + number))
        raw.zadd(lifecycle.keys("schedules"), {f"acme|{kept.id}": due + number})
        if number == 0:
            raw.hdel(lifecycle.keys("schedule", tenant="acme", id=kept.id), "recurrence")
    assert schedules.fire() == 1
    (run,) = runs.list("acme").rows
    assert run.name == "1"
    runs.cancel("acme", run.id)
    for member in raw.zrange(lifecycle.keys("schedules"), 0, -1):
        tenant, _, schedule = member.partition("|")
        raw.delete(lifecycle.keys("schedule", tenant=tenant, id=schedule))
    raw.delete(lifecycle.keys("schedules"), lifecycle.keys("tenant_schedules", tenant="acme"))
