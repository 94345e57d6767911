"""The number of workers follows the load on a running stack, and nothing is lost or counted as a crash on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.stack.valkey import reachable_settings
from services.blobs import Blobs
from services.capacity import Capacity, Limit
from services.documents import Documents
from services.errors import InvalidRequest
from services.fleet import Announcement, Fleet
from services.jobs import JobType, Submission
from services.lifecycle import Lifecycle
from services.metrics import exposition
from services.scaling import Bounds, Kind
from tests.conftest import wait_until
from tests.integration.conftest import Running, running

pytestmark = pytest.mark.both_servers


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
    jobs = [lifecycle.submit(Submission("t", JobType.EXTRACT, {}, cost=0.0))[0].id for _ in range(9)]
    announced(fleet, busy=2)
    capacity.decide()
    (scale,) = capacity.scales()
    assert (scale.live, scale.desired, scale.min, scale.max) == (1, 1, 1, 1)
    assert scale.reason.endswith("1 is the most allowed.")
    assert capacity.change_bounds("documents", None, 4).max == 4
    capacity.decide()
    (scale,) = Capacity(lifecycle).scales()
    assert scale.desired == 2
    assert "9 jobs of normal or more urgent wait, 9 s of work" in scale.reason
    assert 'casemill_desired_workers{kind="documents"} 2.0' in exposition(lifecycle, fleet)[1].decode()
    for job in jobs:
        lifecycle.cancel("t", job)
    lifecycle.care()
    fleet.leave("w1")
    lifecycle.client.delete(lifecycle.keys("tickets", queue="extract.any"))


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


@pytest.mark.slow  # the machine reads hundreds of documents
def test_workers_come_with_the_load_and_go_when_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASEMILL_SCALE_DOWN_SECONDS", "3")
    said: list[str] = []
    with running(tmp_path, say=said.append) as stack:
        assert kinds(stack)["documents"]["max"] == kinds(stack)["cpu"]["max"] == 1
        assert "gpu" not in kinds(stack)
        lifecycle = Lifecycle(reachable_settings(stack.settings))
        blobs = Blobs(stack.settings.data_dir, lifecycle.records.seals)
        documents = Documents(lifecycle.client, lifecycle.keys, blobs)
        jobs: list[str] = []

        def submit(count: int) -> None:
            for number in range(len(jobs), len(jobs) + count):
                document = documents.add("default", f"Agreement {number}.".encode(), name="a.txt", matter=None).id
                body = {"document": document, "name": "a.txt"}
                jobs.append(lifecycle.submit(Submission("default", JobType.EXTRACT, body))[0].id)

        def live(count: int) -> Any:
            def reached() -> bool:
                stack.stack.watch()
                waiting = sum(jobs for jobs, _ in lifecycle.depths().values())
                if count > 1 and waiting < 24:
                    submit(24)  # the load stays until the count has followed
                row = kinds(stack)["documents"]
                return row["live"] == row["desired"] == count

            return wait_until(reached, 90, f"{count} workers")

        answer = stack.http.patch("/v1/workers/documents", json={"max": 2})
        assert (answer.status_code, answer.json()["max"]) == (200, 2), answer.text
        live(2)
        stack.http.patch("/v1/workers/documents", json={"max": 1})
        live(1)  # drained while it worked
        stack.http.patch("/v1/workers/documents", json={"max": 2})
        live(2)
        live(1)
        for job in jobs:
            wait_until(lambda job=job: stack.stack.watch() or stack.job(job)["state"] == "succeeded", 60, job)
            assert stack.job(job)["attempt"] == 1, "work handed back by a worker that drains does not count as tried"
            names = [name for _, name, _ in stack.events(job)]
            assert names.count("succeeded") == 1
        assert lifecycle.counters().get("leases_lost", 0) == 0
        assert [line for line in said if line.startswith("documents-2 drains")] != []
        assert [line for line in said if "died" in line] == []
        lifecycle.client.close()


@pytest.mark.slow
def test_bounds_over_http_and_by_the_command(fake_stack: Running) -> None:
    for kind, body, code in (
        ("cooks", {"max": 2}, "kind_unknown"),
        ("documents", {"min": 5}, "bounds_invalid"),
        ("documents", {"max": "two"}, "request_invalid"),
    ):
        answer = fake_stack.http.patch(f"/v1/workers/{kind}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, code)

    def scale(*arguments: str) -> dict[str, Any]:
        env = dict(os.environ) | {"CASEMILL_URL": fake_stack.url, "CASEMILL_KEY": fake_stack.key}
        command = [sys.executable, "-m", "gateway.cli.main", "scale", "documents", *arguments, "--json"]
        return json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)

    changed, row = scale("--min", "1", "--max", "1"), scale()
    # The reason is that of the moment, and others work with this stack.
    assert changed | {"reason": row["reason"]} == row
    assert (row["kind"], row["min"], row["max"], row["desired"]) == ("documents", 1, 1, 1)
    assert set(row) == {"kind", "live", "desired", "min", "max", "reason"}
    workers = fake_stack.http.get("/v1/workers").json()["data"]
    assert sorted(worker["kind"] for worker in workers) == ["cpu", "delivery", "documents"]
