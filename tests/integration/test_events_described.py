"""Whatever becomes of jobs and runs is told in the events that the description names, and in no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.event_schemas import JOB_EVENTS, RUN_EVENTS, TENANT_EVENTS
from gateway.openapi.answers import Events
from gateway.stack.valkey import EmbeddedValkey
from services.blobs import Blobs
from services.documents import Documents
from services.errors import CasemillError, Transient
from services.jobs import Claim, Completion, Lane
from tests.serving import CPU, Served, serving, settings_on

FAILED, AGAIN = CasemillError("it broke").problem(), Transient("try later").problem()
# What a worker tells while it works, whose place the test takes.
TOLD: dict[str, list[dict[str, Any]]] = {
    "token": [{"text": "The tenant"}],
    "progress": [
        {"step": "embed", "done": 1, "of": 2},
        {"step": "terms", "term": "parties"},
        {"documents": 1, "total": 2},
        {"documents": 1, "total": 2, "computed": 1},
    ],
}


@pytest.fixture(scope="module")
def told(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """The names of all events, of which the witness has seen each."""
    with serving(settings_on(server, tmp_path_factory.mktemp("described"))) as served:
        found = {"job": of_jobs(served), "run": of_runs(served)}
        last = served.submit(matter="M-9")["id"]
        yield found | {"tenant": names(served, "/v1/events", last)}
        served.clear()


def of_jobs(served: Served) -> set[str]:
    """Every way on that a job has, one after the other, and its ends."""
    later = served.submit(not_before="2035-01-31T00:00:00Z")["id"]
    served.http.delete(f"/v1/jobs/{later}")
    job = served.submit(matter="M-1", external_id="A-17")["id"]
    held = take(served, Lane.GENERATE)
    for name, datas in TOLD.items():
        assert all(served.lifecycle.append(held, name, data) for data in datas)
    end(served, held, "retry", problem=AGAIN)
    served.lifecycle.care()
    take(served, Lane.GENERATE)
    served.lifecycle.care(dead_workers=["w1"])
    end(served, take(served, Lane.GENERATE), "released")
    end(served, take(served, Lane.GENERATE), "failed", problem=FAILED)
    found = names(served, f"/v1/jobs/{job}/events", "event: failed")
    assert served.http.post(f"/v1/jobs/{job}/retry").is_success
    end(served, take(served, Lane.GENERATE), result='{"text": "x"}')
    found |= names(served, f"/v1/jobs/{job}/events", "event: succeeded")
    return found | names(served, f"/v1/jobs/{later}/events", "event: cancelled")


def of_runs(served: Served) -> set[str]:
    """The same of a run, beside a review with its steps, until the matter of both is erased."""
    documents = Documents(served.lifecycle.client, served.lifecycle.keys, Blobs(served.settings.data_dir))
    ids = [documents.add("acme", name, name="lease.txt", matter="M-2").id for name in (b"one", b"two")]
    review = served.http.post("/v1/jobs", json={"type": "review", "document": ids[0], "model": "none"}).json()["id"]
    end(served, take(served, Lane.EXTRACT), "retry", problem=AGAIN)
    served.lifecycle.care()
    end(served, take(served, Lane.EXTRACT), "failed", problem=FAILED)
    assert names(served, f"/v1/jobs/{review}/events", "event: failed") == {"waiting", "step", "failed"}
    run = served.http.post("/v1/runs", json={"documents": ids, "type": "extract", "matter": "M-2"}).json()["id"]
    path = f"/v1/runs/{run}"
    end(served, take(served, Lane.EXTRACT), result="res_x")
    for action in ("pause", "resume"):
        assert served.http.post(f"{path}/{action}").is_success
    end(served, take(served, Lane.EXTRACT), "failed", problem=FAILED)
    found = names(served, f"{path}/events", "event: failed")
    assert served.http.post(f"{path}/retry").is_success
    assert served.http.delete("/v1/matters/M-2").is_success
    return found | names(served, f"{path}/events", "event: cancelled")


def take(served: Served, lane: Lane) -> Claim:
    return served.lifecycle.work([], lane=lane, devices=CPU, worker="w1", n=1)[1][0]


def end(served: Served, held: Claim, outcome: Any = "succeeded", **changes: Any) -> None:
    served.lifecycle.work([Completion(held, outcome, **changes)], lane=held.lane, devices=CPU, worker="w1", n=0)


def names(served: Served, path: str, end: str) -> set[str]:
    """The names of a stream's events from the first on, until a line has this in it."""
    found: set[str] = set()
    with served.http.stream("GET", path, headers={"Last-Event-ID": "0"}, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                found.add(line.removeprefix("event: "))
            if end in line:
                break
    return found


@pytest.mark.parametrize(
    ("of", "events", "but"),
    [
        ("job", JOB_EVENTS, {"waiting", "step", "expired", "interrupted"}),
        ("run", RUN_EVENTS, {"scheduled", "succeeded", "expired", "interrupted"}),
        ("tenant", TENANT_EVENTS, {"gap", "idle", "expired", "interrupted"}),
    ],
)
def test_all_that_is_described_is_told(told: dict[str, set[str]], of: str, events: Events, but: set[str]) -> None:
    """Apart from what takes time or a fault."""
    assert told[of] == {name for named in events.values() for name in named} - but
