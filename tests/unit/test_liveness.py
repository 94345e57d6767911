"""When a worker takes itself for deaf: tickets wait, slots are free, and for long none has come."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from services.errors import Unavailable
from services.fleet import Announcement
from workers.liveness import DEAF_SECONDS, Consumer, Look, decide, taking_work

LYING = Look(at=100.0, tickets=3, arrived=7, free=2, draining=False)
LATER = replace(LYING, at=103.0)


def test_the_time_runs_from_the_first_look_that_saw_tickets_lie() -> None:
    since = decide(None, None, LYING)
    assert since == 100
    assert decide(LYING, since, LATER) == 100
    assert decide(LYING, None, LATER) == 103


@pytest.mark.parametrize(
    "change", [{"tickets": 0}, {"free": 0}, {"free": -1}, {"draining": True}], ids=["nothing", "full", "over", "drain"]
)
def test_a_worker_with_nothing_to_take_or_no_room_is_not_deaf(change: dict[str, Any]) -> None:
    assert decide(LYING, 50.0, replace(LATER, **change)) is None


@pytest.mark.parametrize("change", [{"arrived": 8}, {"at": 160.0}], ids=["a ticket came", "the process was stopped"])
def test_the_time_begins_again(change: dict[str, Any]) -> None:
    now = replace(LATER, **change)
    assert decide(LYING, 50.0, now) == now.at


def test_an_outage_ends_the_count() -> None:
    answers = iter([{"a": 1}, {"a": 1}, None, {"a": 1}])

    def tickets(_: Any) -> dict[str, int]:
        answer = next(answers)
        if answer is None:
            raise Unavailable("away")
        return answer

    lifecycle: Any = SimpleNamespace(tickets=tickets)
    consumer = Consumer(lifecycle, ["a"], lambda: (0, 1, False))
    consumer.look()
    assert consumer.look() > 0
    with pytest.raises(Unavailable):
        consumer.look()
    assert consumer.deaf == 0
    assert consumer.look() == 0


def announced(name: str, stalled: float, host: str = "here") -> Announcement:
    return Announcement(f"{name}@{host}.1", host, 1, "cpu", "", (), 1, 1, (), (), 0, "fake", "0", 0.0, stalled=stalled)


def test_a_worker_is_well_while_it_is_announced_and_takes_work() -> None:
    well = announced("cpu", 0.0)
    assert taking_work([well], "cpu", "here") == {"alive": ["cpu@here.1"], "busy": 1}
    for others in ([], [announced("cpu", 0.0, "there")], [announced("cpu-1", 0.0)]):
        with pytest.raises(Unavailable, match="announces itself"):
            taking_work(others, "cpu", "here")
    with pytest.raises(Unavailable, match="takes none"):
        taking_work([announced("cpu", DEAF_SECONDS)], "cpu", "here")
