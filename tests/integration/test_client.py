"""The client against a running stack, blocking and awaiting: what an integrator does, and what can go wrong for one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from casemill import (
    Conflict,
    Forbidden,
    Invalid,
    Job,
    JobFailed,
    NotFound,
    RetryPolicy,
    Throttled,
    Unauthorized,
    Unfinished,
    Unreachable,
)
from tests.both_clients import ask, first
from tests.integration.conftest import Running

LEASE = "This Agreement shall be governed by the laws of the State of Ohio. The tenant pays the rent."
HELLO: dict[str, Any] = {"prompt": "hello", "max_tokens": 12}

Do = Callable[..., Any]


@pytest.fixture(params=["blocking", "awaiting"])
def do(request: pytest.FixtureRequest, fake_stack: Running) -> Do:
    def call(of_client: Callable[[Any], Any], **options: Any) -> Any:
        options = {"url": fake_stack.url, "key": fake_stack.key} | options
        return ask(of_client, awaiting=request.param == "awaiting", **options)

    return call


def test_a_document_is_uploaded_reviewed_and_read(do: Do, tmp_path: Path) -> None:
    file = tmp_path / "lease ü.txt"
    file.write_text(LEASE)
    document = do(lambda client: client.documents.upload(file, matter="M-client"))
    assert (document.name, document.bytes, document.pages, document.matter) == (file.name, len(LEASE), 1, "M-client")
    again = do(lambda client: client.documents.upload(LEASE.encode(), name="other.txt", matter="M-client"))
    assert again.id == document.id
    assert do(lambda client: client.documents.text(document.id))["text"] == LEASE
    assert do(lambda client: client.documents.get(document.id)).chars == len(LEASE)
    assert document.id in [each.id for each in do(lambda client: client.documents.list(matter="M-client"))]
    result = do(lambda client: client.review(file, matter="M-client", priority="high", timeout=60))
    assert result["document"]["id"] == document.id
    assert "Governing Law" in [clause["category"] for clause in result["clauses"]]


def test_the_same_key_is_the_same_job(do: Do, request: pytest.FixtureRequest) -> None:
    key = f"lease-4711-v2 of {request.node.name}"

    def submit(prompt: str) -> Callable[[Any], Any]:
        return lambda client: client.jobs.submit("generate", input={"prompt": prompt}, idempotency_key=key)

    first, second = do(submit("hello")), do(submit("hello"))
    assert first.id == second.id
    with pytest.raises(Invalid) as raised:
        do(submit("another"))
    assert raised.value.code == "idempotency_mismatch"
    unkeyed = [do(lambda client: client.jobs.submit("generate", input=HELLO)) for _ in range(2)]
    assert unkeyed[0].id != unkeyed[1].id


def test_a_job_is_followed_waited_for_and_found(do: Do, request: pytest.FixtureRequest) -> None:
    name = request.node.name
    starts = datetime.now(UTC) + timedelta(seconds=1)
    options = {"external_id": name, "metadata": {"case": "C-17"}, "not_before": starts, "priority": "high"}
    job = do(lambda client: client.jobs.submit("generate", input=HELLO, **options))
    assert (job.state, job.external_id, job.metadata, job.ended) == ("scheduled", name, {"case": "C-17"}, False)
    events = do(lambda client: client.jobs.events(job))
    assert events[0].event == "scheduled"
    assert events[-1].event == "succeeded"
    text = "".join(event.data["text"] for event in events if event.event == "token")
    ended = do(lambda client: client.jobs.wait(job.id))
    assert ended.started_at >= starts
    assert ended.result["text"] == text
    assert do(lambda client: client.jobs.result(job))["text"] == text
    behind = do(lambda client: client.jobs.events(job, after=events[2].id))
    assert behind == events[3:]
    for asked in ({"external_id": name}, {"metadata": {"case": "C-17"}, "state": ["succeeded"], "type": "generate"}):
        assert job.id in [each.id for each in do(lambda client, asked=asked: client.jobs.list(**asked))]
    assert do(lambda client: client.jobs.get(job)).request_id == job.request_id


def test_many_jobs_are_submitted_at_once_and_listed_page_by_page(do: Do, request: pytest.FixtureRequest) -> None:
    name = request.node.name
    jobs: list[Any] = [
        {"type": "embed", "input": {"texts": ["a clause"]}, "external_id": str(n), "metadata": {"of": name}}
        for n in range(120)
    ]
    jobs[7] = {"type": "nonsense"}
    outcomes = do(lambda client: client.jobs.submit_many(jobs, idempotency_key=name))
    refused = outcomes.pop(7)
    assert isinstance(refused, Invalid)
    assert all(isinstance(outcome, Job) for outcome in outcomes)
    again = do(lambda client: client.jobs.submit_many(jobs, idempotency_key=name))
    assert [job.id for job in again if isinstance(job, Job)] == [job.id for job in outcomes]
    listed = do(lambda client: client.jobs.list(metadata={"of": name}))  # of three pages
    assert [job.external_id for job in listed] == [job.external_id for job in reversed(outcomes)]


def test_a_run_is_followed_to_its_results(do: Do) -> None:
    texts = [f"Lease number {number}. {LEASE}" for number in range(3)]
    ids = [do(lambda client, text=text: client.documents.upload(text.encode(), read=False)).id for text in texts]
    run = do(lambda client: client.runs.create(name="three", documents=ids, idempotency_key=ids[0]))
    again = do(lambda client: client.runs.create(name="three", documents=ids, idempotency_key=ids[0]))
    assert again.id == run.id
    events = do(lambda client: client.runs.events(run))
    assert [event.event for event in events].count("document") == 3
    assert (events[-1].event, events[-2].data["succeeded"]) == ("succeeded", 3)
    ended = do(lambda client: client.runs.wait(run.id, timeout=60))
    assert (ended.state, ended.total, ended.succeeded, ended.sealed) == ("succeeded", 3, 3, True)
    results = do(lambda client: client.runs.results(run))
    assert [row["document"] for row in results] == ids
    assert all("risk" in row["result"] for row in results)
    csv = b"".join(do(lambda client: client.download(f"/v1/runs/{run.id}/results", params={"format": "csv"})))
    assert csv.startswith(b"number,name,document")
    assert run.id in [each.id for each in do(lambda client: client.runs.list())]
    assert do(lambda client: client.runs.cancel(run)).state == "succeeded"


def test_an_open_run_gets_documents_until_it_is_sealed_and_all_that_happens_is_told(do: Do) -> None:
    texts = [f"Open lease number {number}. {LEASE}" for number in range(3)]
    ids = [do(lambda client, text=text: client.documents.upload(text.encode(), read=False)).id for text in texts]
    run = do(lambda client: client.runs.create(type="extract", open=True, documents=ids[:1]))
    assert do(lambda client: client.runs.add(run, ids)).total == 3
    assert do(lambda client: client.runs.add(run.id, ids[1:])).total == 3
    assert not do(lambda client: client.runs.get(run)).sealed
    assert do(lambda client: client.runs.seal(run)).sealed
    assert do(lambda client: client.runs.seal(run)).sealed
    assert do(lambda client: client.runs.wait(run, timeout=60)).succeeded == 3
    with pytest.raises(Conflict) as raised:
        do(lambda client: client.runs.add(run, ids))
    assert raised.value.code == "run_state"
    # Of each document it was queued, ran and succeeded; of the run it waited and succeeded.
    told = do(lambda client: first(3 * 3 + 3, client.events(after="0", run=run.id)))
    assert [event.event for event in told].count("succeeded") == 4
    assert (told[0].event, told[-1].event, told[-1].data["run"]) == ("ready", "succeeded", run.id)
    behind = do(lambda client: first(3, client.events(after=told[-3].id, run=run.id)))
    assert behind[1:] == told[-2:]


def test_a_document_and_a_matter_are_erased(do: Do, request: pytest.FixtureRequest) -> None:
    matter = request.node.callspec.params["do"]
    ids = [
        do(lambda client, text=text: client.documents.upload(text, matter=matter, read=False)).id
        for text in (b"one to be erased", b"another", b"a third")
    ]
    for _ in range(2):
        assert do(lambda client: client.documents.erase(ids[0])) is None
    with pytest.raises(NotFound):
        do(lambda client: client.documents.get(ids[0]))
    erased = do(lambda client: client.matters.erase(matter))
    assert (erased.matter, erased.documents) == (matter, 2)
    assert do(lambda client: client.matters.erase(matter)) == erased
    with pytest.raises(NotFound) as raised:
        do(lambda client: client.matters.erase("M-of-nothing"))
    assert raised.value.code == "matter_unknown"


def test_what_goes_wrong_has_a_type_and_a_code(do: Do, fake_stack: Running) -> None:
    def refused(kind: type[Exception], of_client: Callable[[Any], Any], **options: Any) -> Any:
        with pytest.raises(kind) as raised:
            do(of_client, **options)
        assert type(raised.value) is kind
        return raised.value

    def get(client: Any) -> Any:
        return client.jobs.get("job no such ?thing")

    unknown = refused(NotFound, get)
    assert (unknown.code, unknown.status) == ("job_unknown", 404)
    assert unknown.request_id.startswith("req_")
    assert refused(Unauthorized, get, key="cm_x_y").code == "unauthorized"
    reader = fake_stack.http.post("/v1/keys", json={"name": "reader", "scopes": ["read"]}).json()["key"]
    refused(Forbidden, lambda client: client.jobs.submit("generate", input=HELLO), key=reader)
    binary = bytes(range(256)) * 32
    assert refused(Invalid, lambda client: client.documents.upload(binary)).code == "document_type_unknown"
    unread = do(lambda client: client.documents.upload(b"not read yet", read=False)).id
    assert refused(Conflict, lambda client: client.documents.text(unread)).code == "text_missing"
    long = do(lambda client: client.jobs.submit("generate", input={"prompt": "word " * 8000}))
    failed = refused(JobFailed, lambda client: client.jobs.result(long))
    assert (failed.code, failed.job.id) == ("context_exceeded", long.id)
    later = datetime.now(UTC) + timedelta(hours=1)
    waits = do(lambda client: client.jobs.submit("generate", input=HELLO, not_before=later))
    refused(Unfinished, lambda client: client.jobs.wait(waits, timeout=0.5))
    assert do(lambda client: client.jobs.cancel(waits)).state == "cancelled"
    assert refused(JobFailed, lambda client: client.jobs.result(waits)).code == "job_cancelled"
    nobody = refused(Unreachable, get, url="http://127.0.0.1:1", retry=RetryPolicy(attempts=2, first=0.01))
    assert nobody.code == "gateway_away"


def test_who_asks_too_often_is_told_and_waits(do: Do, fake_stack: Running) -> None:
    made = fake_stack.http.post("/v1/keys", json={"name": "busy", "scopes": ["read"], "requests_per_minute": 60})
    key = made.json()["key"]

    def get(client: Any) -> Any:
        return client.documents.list()

    with pytest.raises(Throttled) as raised:
        for _ in range(200):
            do(get, key=key, retry=RetryPolicy(attempts=1))
    assert raised.value.code == "rate_limited"
    assert (raised.value.retry_after or 0) >= 1
    assert isinstance(do(get, key=key), list)


def test_no_proxy_sees_what_goes_to_the_gateway(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert do(lambda client: client.request("GET", "/v1/models"))["object"] == "list"
