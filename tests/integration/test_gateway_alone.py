"""A gateway over a real socket with no worker behind it: moments that a worker would rush past can be seen."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from opentelemetry import trace
from opentelemetry.trace import NoOpTracer, Tracer, TracerProvider

from gateway.app import create_app
from services.access import Access
from services.blobs import Blobs
from services.documents import Documents
from services.errors import NotFound
from services.fleet import Announcement, Fleet, WorkerModel
from services.jobs import Completion, Device, JobType, Lane, Priority, Submission
from services.lifecycle import Lifecycle
from services.models import CLAUSE_MODEL
from services.redis_client import server_time
from services.settings import Settings
from tests.conftest import wait_until
from tests.integration.test_lifecycle import tidy

__all__ = ["tidy"]


@dataclass
class Alone:
    http: httpx.Client
    lifecycle: Lifecycle
    documents: Documents
    access: Access
    url: str


def announce(lifecycle: Lifecycle, *embedders: str) -> None:
    """As a CPU worker of the lanes generate and embed would."""
    names = [("m", "generate"), *((name, "embed") for name in embedders or ("e",))]
    models = tuple(WorkerModel(name, kind, "0" * 64, 512, True) for name, kind in names)
    client, keys = lifecycle.client, lifecycle.keys
    Fleet(client, keys).announce(
        Announcement("w1", "here", 1, "cpu", "", ("generate", "embed"), 1, 0, (), models, 0, "fake", "0", 0.0)
    )
    # It does not say again that it lives, and a test may take long.
    client.expire(keys("worker", id="w1"), 600)
    client.zadd(keys("workers"), {"w1": server_time(client) + 600})


@pytest.fixture
def alone(settings: Settings, lifecycle: Lifecycle) -> Iterator[Alone]:
    announce(lifecycle)
    access = Access(lifecycle.client, lifecycle.keys)
    secret = access.create("test", tenant="acme")
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="error"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    wait_until(lambda: server.started)
    documents = Documents(lifecycle.client, lifecycle.keys, Blobs(settings.data_dir))
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as http:
        yield Alone(http, lifecycle, documents, access, url)
    server.should_exit = True
    thread.join()
    listener.close()
    Fleet(lifecycle.client, lifecycle.keys).leave("w1")


CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}


def test_a_client_that_leaves_a_stream_cancels_its_jobs(alone: Alone) -> None:
    with alone.http.stream("POST", "/v1/chat/completions", json=CHAT | {"n": 3}) as answer:
        first = next(line for line in answer.iter_lines() if line.startswith("data: "))
    job = "job_" + json.loads(first.removeprefix("data: "))["id"].removeprefix("chatcmpl-")

    def states() -> dict[str, str]:
        return {job["id"]: job["state"] for job in alone.http.get("/v1/jobs").json()["data"]}

    assert len(states()) == 3
    assert job in states()
    wait_until(lambda: set(states().values()) == {"cancelled"}, 15, "the jobs' cancellation")


def test_choices_are_accepted_all_or_none(alone: Alone) -> None:
    body = {"model": "m", "prompt": ["fine", "not\0fine"]}
    assert alone.http.post("/v1/completions", json=body).status_code == 422
    assert [job["state"] for job in alone.http.get("/v1/jobs").json()["data"]] == ["cancelled"]


def test_a_stream_whose_worker_was_lost_ends_with_an_error(alone: Alone) -> None:
    lines: list[str] = []

    def read() -> None:
        with alone.http.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
            lines.extend(line for line in answer.iter_lines() if line)

    reader = threading.Thread(target=read)
    reader.start()

    def take() -> Any:
        return alone.lifecycle.work([], lane=Lane.GENERATE, devices=(Device.CPU, Device.ANY), worker="w1", n=1)[1]

    (held,) = wait_until(take)
    alone.lifecycle.append(held, "token", {"text": "Hel"})
    alone.lifecycle.care(dead_workers=["w1"])
    (again,) = wait_until(take)
    alone.lifecycle.append(again, "token", {"text": "Hello"})
    reader.join(20)
    assert "stream_restarted" in lines[-1]
    assert not any("[DONE]" in line for line in lines)


def test_a_follower_that_comes_back_after_the_end_is_let_go(alone: Alone) -> None:
    job, _ = alone.lifecycle.submit(Submission("acme", JobType.GENERATE, {"prompt": "x"}))
    alone.lifecycle.cancel("acme", job.id)
    text = alone.http.get(f"/v1/jobs/{job.id}/events").text
    last = [line for line in text.splitlines() if line.startswith("id: ")][-1].removeprefix("id: ")
    again = alone.http.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": last})
    assert again.text == ""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"type": "generate", "device": "gpu", "input": {"prompt": "x"}}, "device_unavailable"),
        ({"type": "generate", "input": {"prompt": "x", "max_tokens": "abc"}}, "input_invalid"),
        ({"type": "generate", "input": {"prompt": "x", "blob": "in_0"}}, "input_invalid"),
        ({"type": "generate", "input": {"prompt": "x", "messages": []}}, "input_invalid"),
        ({"type": "embed", "input": {"texts": [""]}}, "input_invalid"),
    ],
)
def test_what_could_never_run_is_refused(alone: Alone, body: dict[str, Any], code: str) -> None:
    answer = alone.http.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


OWN = """
name: leases
categories:
  - {id: governing_law, title: Governing Law, weight: 1, literals: [governed by]}
  - {id: rent_review, title: Rent review, weight: 1, literals: [rent review]}
"""


@pytest.mark.parametrize(
    ("embedders", "playbook", "steps"),
    [
        ((CLAUSE_MODEL, "e"), "default", [("context", CLAUSE_MODEL)]),
        ((CLAUSE_MODEL, "e"), "leases", [("context", CLAUSE_MODEL), ("embed", "e")]),
        (("e",), "default", [("embed", "e")]),
    ],
)
def test_a_review_computes_the_vectors_that_its_playbook_needs(
    alone: Alone, embedders: tuple[str, ...], playbook: str, steps: list[tuple[str, str]]
) -> None:
    announce(alone.lifecycle, *embedders)
    assert alone.http.post("/v1/playbooks", content=OWN).is_success
    document = alone.documents.add("acme", b"text", name="a.txt").id
    answer = alone.http.post("/v1/jobs", json={"type": "review", "document": document, "playbook": playbook})
    record = alone.lifecycle.keys("job", tenant="acme", id=answer.json()["id"])
    raw: Any = alone.lifecycle.client.hget(record, "plan")
    plan = [(step["name"], step["model"]) for step in json.loads(raw) if step["lane"] == "embed"]
    assert plan == steps


@pytest.mark.parametrize("path", ["duplicates", "counts"])
def test_a_job_over_a_matter_costs_by_its_documents(alone: Alone, path: str) -> None:
    for number in range(5):
        alone.documents.add("acme", b"text %d" % number, name="a.txt", matter="m-1")
    job = alone.http.post(f"/v1/{path}", json={"matter": "m-1"}).json()["id"]
    assert alone.lifecycle.client.hget(alone.lifecycle.keys("job", tenant="acme", id=job), "cost") == "0.2"


def test_an_extraction_on_a_gpu_is_refused(alone: Alone) -> None:
    document = alone.documents.add("acme", b"text", name="a.txt").id
    answer = alone.http.post("/v1/jobs", json={"type": "extract", "device": "gpu", "document": document})
    assert answer.json()["code"] == "device_unavailable"


def test_text_that_speaks_of_nul_is_no_nul(alone: Alone) -> None:
    answer = alone.http.post("/v1/jobs", json={"type": "generate", "input": {"prompt": "the escape \\u0000"}})
    assert answer.status_code == 202


def test_a_modest_key_chats_at_its_own_ceiling(alone: Alone) -> None:
    secret = alone.access.create("modest", tenant="acme", ceiling=Priority.LOW)
    headers = {"Authorization": f"Bearer {secret}"}
    with alone.http.stream("POST", "/v1/chat/completions", json=CHAT, headers=headers) as answer:
        assert answer.status_code == 200
        first = next(line for line in answer.iter_lines() if line.startswith("data: "))
    job = "job_" + json.loads(first.removeprefix("data: "))["id"].removeprefix("chatcmpl-")
    assert alone.lifecycle.get("acme", job).priority is Priority.LOW


def test_a_dead_letter_is_listed_and_replayed(alone: Alone) -> None:
    job = alone.http.post("/v1/jobs", json={"type": "generate", "input": {"prompt": "x"}}).json()["id"]
    (held,) = alone.lifecycle.work([], lane=Lane.GENERATE, devices=(Device.ANY,), worker="w1", n=1)[1]
    problem = {"type": "urn:x", "title": "x", "status": 500, "code": "broken", "detail": "x", "retryable": False}
    failed = Completion(held, "failed", problem=problem)
    alone.lifecycle.work([failed], lane=Lane.GENERATE, devices=(Device.ANY,), worker="w1", n=0)
    (letter,) = alone.http.get("/v1/dead-letters").json()["data"]
    assert (letter["id"], letter["problem"]["code"]) == (job, "broken")
    assert alone.http.post(f"/v1/dead-letters/{job}/replay").json()["state"] == "queued"
    assert alone.http.post(f"/v1/jobs/{job}/retry").status_code == 409
    assert alone.http.get("/v1/dead-letters").json()["data"] == []


def test_erasing_a_document_takes_its_results_and_nothing_of_another(alone: Alone) -> None:
    documents = alone.documents
    one = documents.add("acme", b"one", name="a").id
    two = documents.add("acme", b"two", name="b").id
    for document in (one, two):
        blob = documents.blobs.put("acme", "text", b"the same text", scope=document)
        documents.keep_output("acme", document, "text:1", blob)
    result = documents.blobs.put("acme", "res", b"{}", scope=one)
    documents.keep_result("acme", [one], "job_1", result, kept_seconds=60)
    assert alone.http.delete(f"/v1/documents/{one}").status_code == 204
    with pytest.raises(NotFound):
        documents.blobs.get("acme", result)
    kept = documents.output("acme", two, "text:1")
    assert kept
    assert documents.blobs.get("acme", kept) == b"the same text"
    late = documents.blobs.put("acme", "text", b"computed while it was erased", scope=one)
    with pytest.raises(NotFound):
        documents.keep_output("acme", one, "text:2", late)
    with pytest.raises(NotFound):
        documents.blobs.get("acme", late)


def test_a_queued_job_tells_its_place_and_when_it_starts(alone: Alone) -> None:
    jobs = [
        alone.http.post("/v1/jobs", json={"type": "generate", "input": {"prompt": "x"}}).json()["id"] for _ in range(3)
    ]
    view = alone.http.get(f"/v1/jobs/{jobs[2]}").json()
    assert (view["position"], view["eta_seconds"]) == (2, None), "nothing was measured yet"
    raw: Any = alone.lifecycle.client
    raw.hset(alone.lifecycle.keys("service"), "generate", "4.5")
    assert alone.http.get(f"/v1/jobs/{jobs[2]}").json()["eta_seconds"] == 9.0


def test_no_exporter_of_the_machine_learns_who_calls_what(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Exporting(TracerProvider):
        def get_tracer(self, instrumenting_module_name: str, *rest: Any, **named: Any) -> Tracer:
            asked.append(instrumenting_module_name)
            return NoOpTracer()

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", Exporting())
    assert alone.http.get("/v1/jobs").status_code == 200
    assert asked == []
