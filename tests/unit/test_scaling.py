"""The count of workers stays in its bounds, follows the load both ways, and rests when the load rests."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from services.jobs import Device, Lane, Priority
from services.scaling import (
    GROW_SECONDS,
    Bounds,
    Kind,
    KindPlan,
    KindSnapshot,
    Waiting,
    decide,
    growth_limit,
    kind_of,
    shrink_limit,
)

NOW = 1_000_000.0

waits = st.dictionaries(
    st.sampled_from(Priority),
    st.builds(Waiting, st.integers(1, 500), st.floats(0.01, 5000), st.floats(0, 5000)),
)


@st.composite
def snapshots(draw: st.DrawFn) -> KindSnapshot:
    least = draw(st.integers(1, 20))
    bounds = Bounds(least, least + draw(st.integers(0, 40)))
    live, seats = draw(st.integers(0, 60)), draw(st.integers(1, 32))
    return KindSnapshot(
        kind=draw(st.sampled_from(Kind)),
        live=live,
        slots=live * seats,
        busy=draw(st.integers(0, live * seats)),
        seats=seats,
        waiting=draw(waits),
        bounds=bounds,
        pause=draw(st.sampled_from([180.0, 600.0])),
        desired=draw(st.integers(0, 80)),
        changed=NOW - draw(st.floats(-5000, 5000)),
        spare_since=draw(st.one_of(st.just(0.0), st.floats(NOW - 5000, NOW + 5000))),
        now=NOW,
    )


def one(snapshot: KindSnapshot) -> KindPlan:
    (plan,) = decide([snapshot])
    return plan


def calm(**changes: object) -> KindSnapshot:
    """Four workers of two slots, half of them busy, nothing waiting, nothing changed for long."""
    base = KindSnapshot(Kind.DOCUMENTS, 4, 8, 4, 2, {}, Bounds(1, 16), 180.0, 4, 0.0, 0.0, NOW)
    return replace(base, **changes)


@given(snapshots())
def test_the_bounds_hold_and_the_reason_is_a_sentence(snapshot: KindSnapshot) -> None:
    plan = one(snapshot)
    assert snapshot.bounds.min <= plan.desired <= snapshot.bounds.max
    assert plan.reason[0].isupper() or plan.reason[0].isdigit()
    assert plan.reason.endswith(".")
    assert plan.changed <= snapshot.now and plan.spare_since <= snapshot.now, "a clock set back must not hold up later"


@given(snapshots())
def test_a_step_is_limited_and_marked(snapshot: KindSnapshot) -> None:
    before = snapshot.bounds.clamp(snapshot.desired)
    plan = one(snapshot)
    assert shrink_limit(before) <= plan.desired <= growth_limit(before)
    if plan.desired != snapshot.desired:
        assert plan.changed == snapshot.now


@given(snapshots(), waits, st.integers(0, 50))
def test_more_load_never_means_fewer_workers(snapshot: KindSnapshot, more: dict[Priority, Waiting], busy: int) -> None:
    none = Waiting(0, 0.0, 0.0)
    added = {
        priority: Waiting(a.jobs + b.jobs, a.work + b.work, max(a.oldest, b.oldest))
        for priority in Priority
        for a, b in [(snapshot.waiting.get(priority, none), more.get(priority, none))]
    }
    loaded = replace(snapshot, waiting=added, busy=min(snapshot.slots, snapshot.busy + busy))
    assert one(loaded).desired >= one(snapshot).desired


@given(snapshots(), st.sampled_from([1.0, 5.0, 30.0]))
def test_a_load_that_stays_moves_the_count_one_way_and_then_not_at_all(snapshot: KindSnapshot, tick: float) -> None:
    assume(snapshot.live)
    counts = [snapshot.bounds.clamp(snapshot.desired)]
    state = replace(snapshot, desired=counts[0])
    for step in range(400):
        plan = one(replace(state, now=NOW + step * tick))
        state = replace(state, desired=plan.desired, changed=plan.changed, spare_since=plan.spare_since)
        counts.append(plan.desired)
    changes = [after - before for before, after in pairwise(counts) if after != before]
    assert not changes or min(changes) > 0 or max(changes) < 0, counts


def test_work_that_would_wait_grows_at_once_and_by_what_it_takes() -> None:
    waiting = {Priority.NORMAL: Waiting(20, 40.0, 0.5)}
    plan = one(calm(busy=8, slots=8, waiting=waiting))
    assert plan.desired == 8, "the double, although 9 would be right"
    assert "20 jobs of normal or more urgent wait, 40 s of work" in plan.reason
    later = calm(busy=8, desired=8, changed=NOW, now=NOW + 1, waiting=waiting)
    assert one(later).desired == 8, "the workers of the step before are still starting"
    assert one(replace(later, now=NOW + GROW_SECONDS)).desired == 9


def test_a_short_queue_in_free_slots_grows_nothing() -> None:
    assert one(calm(waiting={Priority.NORMAL: Waiting(3, 0.5, 0.1)})).desired == 4


def test_bulk_work_is_given_what_its_target_takes_not_what_is_busy() -> None:
    full = calm(busy=8, waiting={Priority.BULK: Waiting(100, 200.0, 1.0)})
    assert one(full).desired == 4
    assert one(replace(full, waiting={Priority.BULK: Waiting(1000, 2000.0, 1.0)})).desired == 8


def test_age_tells_what_the_measurement_missed_but_only_while_no_slot_is_free() -> None:
    old = {Priority.HIGH: Waiting(1, 0.01, 60.0)}
    assert one(calm(busy=8, waiting=old)).desired == 5
    assert one(calm(busy=4, waiting=old)).desired == 4, "a job that no worker can serve needs no more of them"
    assert one(calm(busy=6, slots=6, live=3, waiting=old)).desired == 4, "the fourth is still starting"


def test_fewer_must_do_for_the_whole_pause_before_one_goes() -> None:
    first = one(calm(busy=1))
    pause = 180.0
    assert (first.desired, first.spare_since) == (4, NOW)
    waited = calm(busy=1, spare_since=NOW, now=NOW + pause - 1)
    assert one(waited).desired == 4
    assert one(replace(waited, busy=6)).spare_since == 0.0, "a busy moment starts the pause again"
    assert one(replace(waited, now=NOW + pause)).desired == 3


def test_nobody_alive_is_no_evidence() -> None:
    waiting = {Priority.CRITICAL: Waiting(100, 1000.0, 100.0)}
    assert one(calm(live=0, slots=0, busy=0, waiting=waiting)).desired == 4


def test_a_worker_is_of_the_kind_that_its_lanes_tell() -> None:
    assert kind_of(Device.CPU, [Lane.EXTRACT, Lane.DELIVER]) is Kind.DOCUMENTS
    assert kind_of(Device.CPU, [Lane.DELIVER]) is Kind.DELIVERY
    assert kind_of(Device.CPU, list(Lane)) is Kind.CPU
    assert kind_of(Device.GPU, [Lane.GENERATE]) is Kind.GPU
