"""A request that is repeated after a lost answer is answered as the first one was, whatever has changed since."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from gateway.stack.valkey import EmbeddedValkey
from services.errors import Unavailable
from services.jobs import Lane
from services.runs import Run, Runs
from tests.batch_house import URL
from tests.conftest import wait_until
from tests.integration.test_gateway import problem
from tests.serving import CPU, Served, serving, settings_on

pytestmark = pytest.mark.both_servers

KEYED = {"Idempotency-Key": "once"}


@pytest.fixture
def served(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_on(server, tmp_path_factory.mktemp("repeats"))) as alone:
        yield alone


def upload(served: Served, text: str, **params: Any) -> str:
    answer = served.http.post("/v1/documents", params={"read": False} | params, content=text.encode())
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def run_of(answer: httpx.Response) -> str:
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/runs/{answer.json()['id']}"
    return answer.json()["id"]


@contextmanager
def no_worker(served: Served) -> Generator[None]:
    """As while the only worker, and its model with it, is away."""
    raw: Any = served.lifecycle.client
    worker = served.lifecycle.keys("worker", id="w1")
    raw.rename(worker, f"{worker}-away")
    try:
        yield
    finally:
        raw.rename(f"{worker}-away", worker)


def test_a_run_is_answered_to_a_repeat_that_would_be_refused_now(served: Served) -> None:
    kept, gone = upload(served, "kept", matter="m-1"), upload(served, "gone", matter="m-2")
    bodies: list[dict[str, Any]] = [
        {"type": "review", "model": "m", "documents": [kept]},
        {"type": "extract", "documents": [gone]},
        {"type": "extract", "documents": [gone], "open": True},
        {"type": "extract", "matter": "m-2"},
    ]

    def send(number: int, **headers: str) -> httpx.Response:
        return served.http.post("/v1/runs", json=bodies[number], headers=headers)

    def named(number: int) -> dict[str, str]:
        return {"Idempotency-Key": f"run {number}"}

    first = [run_of(send(number, **named(number))) for number in range(4)]
    assert served.http.delete(f"/v1/documents/{gone}").status_code == 204
    with no_worker(served):
        wait_until(lambda: send(0).status_code == 422, 5, "no model any more")
        problem(send(1), 404, "document_unknown")
        problem(send(3), 404, "matter_unknown")
        assert [run_of(send(number, **named(number))) for number in range(4)] == first
        problem(send(1, **named(0)), 404, "document_unknown")
    other = bodies[0] | {"priority": "low"}
    problem(served.http.post("/v1/runs", json=other, headers=named(0)), 422, "idempotency_mismatch")
    with served.client("rival") as rival:
        problem(rival.post("/v1/runs", json=bodies[1], headers=named(1)), 404, "document_unknown")
        assert run_of(rival.post("/v1/runs", json={"type": "extract", "open": True}, headers=named(1))) not in first


def test_a_repeat_adds_the_documents_that_the_first_request_was_cut_off_in(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [upload(served, str(number)) for number in range(3)]
    body = {"type": "extract", "documents": documents}
    whole_add = Runs.add

    def add(runs: Runs, tenant: str, run: str, asked: Sequence[str]) -> Run:
        whole_add(runs, tenant, run, asked[:1])
        raise Unavailable("Redis is away", code="redis_away")

    with monkeypatch.context() as patched:
        patched.setattr(Runs, "add", add)
        assert served.http.post("/v1/runs", json=body, headers=KEYED).status_code == 503
    assert served.http.delete(f"/v1/documents/{documents[0]}").status_code == 204
    whole = served.http.post("/v1/runs", json=body, headers=KEYED)
    assert (run_of(whole), whole.json()["total"], whole.json()["sealed"]) == (whole.json()["id"], 3, True)
    assert len(served.http.get("/v1/runs").json()["data"]) == 1


def test_a_run_that_is_being_cancelled_is_answered_as_it_is(served: Served) -> None:
    body = {"type": "extract", "documents": [upload(served, "one")], "open": True}
    run = run_of(served.http.post("/v1/runs", json=body, headers=KEYED))
    (held,) = served.lifecycle.work([], lane=Lane.EXTRACT, devices=CPU, worker="w1", n=1)[1]
    assert served.http.delete(f"/v1/runs/{run}").json()["cancelling"]
    again = served.http.post("/v1/runs", json=body, headers=KEYED)
    assert (run_of(again), again.json()["cancelling"]) == (run, True)
    served.end(held, "cancelled")
    assert served.http.post("/v1/runs", json=body, headers=KEYED).json()["state"] == "cancelled"


def test_a_batch_is_answered_to_a_repeat_whose_file_is_gone(served: Served) -> None:
    line = {"custom_id": "1", "method": "POST", "url": URL, "body": {"model": "m", "prompt": "hello"}}
    files = {"file": ("x.jsonl", json.dumps(line).encode())}
    file = served.http.post("/v1/files", data={"purpose": "batch"}, files=files).json()["id"]
    asked = {"input_file_id": file, "endpoint": URL, "completion_window": "24h"}

    def send(body: dict[str, Any], client: httpx.Client = served.http) -> httpx.Response:
        return client.post("/v1/batches", json=body, headers=KEYED)

    batch = send(asked).json()["id"]
    other = asked | {"metadata": {"case": "another"}}
    assert (send(other).status_code, send(other).json()["error"]["code"]) == (422, "idempotency_mismatch")
    served.http.post(f"/v1/batches/{batch}/cancel")
    assert served.http.delete(f"/v1/files/{file}").status_code == 200
    unnamed = served.http.post("/v1/batches", json=asked)
    assert (unnamed.status_code, unnamed.json()["error"]["code"]) == (404, "file_unknown")
    again = send(asked)
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (200, batch, "cancelled")
    assert send(other).status_code == 404
    with served.client("rival") as rival:
        assert send(asked, rival).status_code == 404


def test_a_key_whose_job_is_not_kept_any_more_is_as_new(served: Served) -> None:
    body = {"type": "extract", "documents": [upload(served, "one")]}
    run = run_of(served.http.post("/v1/runs", json=body, headers=KEYED))
    served.http.delete(f"/v1/runs/{run}")
    assert served.http.delete(f"/v1/documents/{body['documents'][0]}").status_code == 204
    raw: Any = served.lifecycle.client
    raw.delete(served.lifecycle.keys("job", tenant="acme", id=run))  # as after its time
    problem(served.http.post("/v1/runs", json=body, headers=KEYED), 404, "document_unknown")
