"""The number of workers follows the load on a running stack, and nothing is lost or counted as a crash on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import casemill
from services import scaling
from services.capacity import Capacity, Limit
from services.errors import InvalidRequest
from services.fleet import Announcement, Fleet
from services.jobs import JobType, Submission
from services.lifecycle import Lifecycle
from services.metrics import exposition
from services.scaling import Bounds, Kind
from tests.conftest import wait_until
from tests.integration.conftest import Running, running


def kinds(stack: Running) -> dict[str, dict[str, Any]]:
    return {row["kind"]: row for row in stack.http.get("/v1/workers").json()["kinds"]}


def announced(fleet: Fleet, busy: int, slots: int = 2, lanes: tuple[str, ...] = ("extract", "deliver")) -> None:
    fleet.announce(
        Announcement(
            "w1", "here", 1, "cpu", "", lanes, slots, busy, (), models=(), memory=0, engine="", version="", started=0.0
        )
    )


def test_the_decision_is_made_from_redis_and_kept_there_for_everybody(lifecycle: Lifecycle) -> None:
    capacity, fleet = Capacity(lifecycle), Fleet(lifecycle.client, lifecycle.keys)
    capacity.decide()
    assert capacity.scales() == [], "nobody has asked for a decision"
    capacity.declare({Kind.DOCUMENTS: Limit(4, Bounds(1, 1))})
    for _ in range(9):
        lifecycle.submit(Submission("t", JobType.EXTRACT, {}))
    announced(fleet, busy=2)
    capacity.decide()
    (scale,) = capacity.scales()
    assert (scale.live, scale.desired, scale.min, scale.max) == (1, 1, 1, 1)
    assert scale.reason.endswith("1 is the most allowed.")
    assert capacity.change_bounds("documents", None, 4).max == 4
    capacity.decide()
    (scale,) = Capacity(Lifecycle(lifecycle.settings)).scales()
    assert scale.desired == 2
    assert "9 jobs of normal or more urgent wait, 9 s of work" in scale.reason
    assert 'casemill_desired_workers{kind="documents"} 2.0' in exposition(lifecycle, fleet)[1].decode()


@pytest.mark.parametrize(
    ("kind", "least", "most", "code"),
    [
        ("cooks", 1, 2, "kind_unknown"),
        ("documents", 0, None, "bounds_invalid"),
        ("documents", 3, 2, "bounds_invalid"),
        ("documents", None, 5, "bounds_invalid"),
        ("gpu", 1, 1, "bounds_invalid"),
    ],
)
def test_bounds_that_cannot_be_are_refused(
    lifecycle: Lifecycle, kind: str, least: int | None, most: int | None, code: str
) -> None:
    capacity = Capacity(lifecycle)
    capacity.declare({Kind.DOCUMENTS: Limit(4, Bounds(1, 1))})
    with pytest.raises(InvalidRequest) as raised:
        capacity.change_bounds(kind, least, most)
    assert raised.value.code == code
    assert capacity.bounds() == {Kind.DOCUMENTS: Bounds(1, 1)}


def test_bounds_of_a_larger_machine_are_cut_to_what_this_one_has(lifecycle: Lifecycle) -> None:
    capacity = Capacity(lifecycle)
    capacity.change_bounds("documents", 3, 8)
    capacity.change_bounds("gpu", None, 2)
    capacity.declare({Kind.DOCUMENTS: Limit(2, Bounds(1, 1))})
    assert capacity.bounds()[Kind.DOCUMENTS] == Bounds(2, 2)


def test_workers_come_with_the_load_and_go_when_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with running(tmp_path, say=said.append) as stack:
        assert kinds(stack)["documents"]["max"] == 1
        answer = stack.http.patch("/v1/workers/documents", json={"max": 2})
        assert answer.status_code == 200, answer.text
        assert answer.json()["max"] == 2
        assert stack.http.patch("/v1/workers/cooks", json={"max": 2}).json()["code"] == "kind_unknown"
        assert stack.http.patch("/v1/workers/documents", json={"min": 5}).json()["code"] == "bounds_invalid"
        assert stack.http.patch("/v1/workers/documents", json={"max": "two"}).json()["code"] == "request_invalid"
