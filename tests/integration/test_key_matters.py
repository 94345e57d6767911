"""Keys for named matters: what belongs to others is not there for them, in answers, lists, cursors and ids."""

from __future__ import annotations

from typing import Any

import httpx

from services.blobs import Blobs
from services.jobs import Completion, Device, Lane
from tests.integration.test_keys import GENERATE, Served, gateway, installation, refused
from tests.integration.test_lifecycle import tidy

__all__ = ["gateway", "installation", "tidy"]


def test_matters_are_walls(gateway: Served) -> None:
    one = gateway.make(scopes=("submit", "read"), matters=["M-1"])
    two = gateway.make(scopes=("submit", "read"), matters=["M-2"])
    both = gateway.make(scopes=("submit", "read"), matters=["M-1", "M-2"])

    def upload(by: httpx.Client, **query: str) -> httpx.Response:
        return by.post("/v1/documents", params={"read": "false"} | query, content=b"the same bytes")

    first, second = upload(one), upload(two, name="theirs.txt")
    assert (first.json()["matter"], second.json()["matter"]) == ("M-1", "M-2")
    assert first.json()["id"] != second.json()["id"], "an upload does not tell what another matter has"
    refused(upload(one, matter="M-2"), 403, "matter_forbidden")
    refused(upload(both), 403, "matter_forbidden")
    assert upload(both, matter="M-2").json()["id"] == second.json()["id"]

    headers = {"Idempotency-Key": "monday"}
    jobs = [by.post("/v1/jobs", json=GENERATE, headers=headers).json() for by in (one, two)]
    assert jobs[0]["id"] != jobs[1]["id"], "nor does an idempotency key"
    assert [job["matter"] for job in jobs] == ["M-1", "M-2"]
    assert [job["id"] for job in one.get("/v1/jobs").json()["data"]] == [jobs[0]["id"]]
    assert len(both.get("/v1/jobs").json()["data"]) == 2
    refused(both.post("/v1/jobs", json=GENERATE), 403, "matter_forbidden")
    of_both = {"before": first.json()["id"], "after": second.json()["id"]}
    refused(one.post("/v1/compare", json=of_both), 404, "document_unknown")
    assert both.post("/v1/compare", json=of_both | {"matter": "M-1"}).status_code == 202
    refused(one.post("/v1/duplicates", json={"matter": "M-2"}), 403, "matter_forbidden")
    answers: list[str] = []
    for matter in ("M-2", "M-9"):  # of which one exists
        search = {"type": "search", "input": {"queries": ["rent"], "matter": matter}}
        answers.append(refused(one.post("/v1/jobs", json=search), 404, "matter_unknown").json()["detail"])
    assert answers[0] == answers[1].replace("M-9", "M-2")
    run = one.post("/v1/runs", json={"open": True, "model": "none"}).json()
    assert run["matter"] == "M-1"
    added = one.post(f"/v1/runs/{run['id']}/documents", json={"documents": [second.json()["id"]]})
    refused(added, 404, "document_unknown")


def test_cursors_tell_nothing_of_other_matters(gateway: Served) -> None:
    """Not even that there is more: a page is filled with what the key sees, and its cursor names a row of the page."""
    every = gateway.make(scopes=("submit", "read"))
    one = gateway.make(scopes=("submit", "read"), matters=["M-1"])
    both = gateway.make(scopes=("submit", "read"), matters=["M-1", "M-2"])
    lists = {"/v1/documents", "/v1/jobs", "/v1/runs", "/v1/schedules", "/v1/dead-letters"}
    schedule = {"name": "s", "cron": "0 8 * * *", "time_zone": "UTC"}
    for number, matter in enumerate(("M-1", "M-2", "M-2", "M-1", "M-2", "M-2")):
        query = {"read": "false", "matter": matter}
        every.post("/v1/documents", params=query, content=f"document {number}".encode())
        every.post("/v1/jobs", json=GENERATE | {"matter": matter})
        every.post("/v1/runs", json={"open": True, "model": "none", "matter": matter})
        every.post("/v1/schedules", json=schedule | {"run": {"matter": matter, "model": "none"}})
    place: dict[str, Any] = {"lane": Lane.GENERATE, "devices": (Device.ANY,), "worker": "w1"}
    problem = {"type": "urn:x", "title": "x", "status": 500, "code": "broken", "detail": "x", "retryable": False}
    while claims := gateway.lifecycle.work([], n=1, **place)[1]:
        gateway.lifecycle.work([Completion(claims[0], "failed", problem=problem)], n=0, **place)
    for path in lists:
        assert [row["matter"] for row in whole_list(one, path)] == ["M-1"] * 2, path
        assert len(whole_list(both, path)) == len(whole_list(every, path)) == 6, path
    for path in ("/v1/documents", "/v1/jobs"):
        hidden, unknown = (
            one.get(path, params={"matter": matter, "limit": 1}).json() for matter in ("M-2", "M-unknown")
        )
        assert hidden == unknown
        assert hidden["data"] == []


def whole_list(by: httpx.Client, path: str) -> list[dict[str, Any]]:
    """All rows, page by page of one row; every page but an empty list's has its row."""
    rows: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        page = by.get(path, params={"limit": 1} | cursor).json()
        assert len(page["data"]) == 1, "a page with nothing to see would say that there is something"
        rows += page["data"]
        if page["next_cursor"] is None:
            return rows
        cursor = {"cursor": page["next_cursor"]}


def test_a_long_prompt_goes_with_the_matter_that_its_key_gave_it(gateway: Served) -> None:
    mine, blobs = gateway.make(scopes=("submit", "read"), matters=["M-1"]), Blobs(gateway.data_dir)
    prompt = {"prompt": 20_000 * "privileged ", "max_tokens": 9}
    job = mine.post("/v1/jobs", json={"type": "generate", "input": prompt}).json()
    assert job["matter"] == "M-1"
    assert [file.path.name[:3] for file in blobs.stored("acme")] == ["in_"]
    assert mine.delete("/v1/matters/M-1").status_code == 200
    assert list(blobs.stored("acme")) == []
