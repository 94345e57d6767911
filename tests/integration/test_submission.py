"""How jobs come in: waiting for their end, many in one request, found again by what the client calls them, shed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway import job_lines
from gateway.accepting import Built, build_or_find
from gateway.job_lines import MEDIA_TYPE, MOST_LINES
from gateway.schemas import JobRequest
from gateway.stack.valkey import EmbeddedValkey
from services.blobs import Blobs
from services.errors import InvalidRequest
from services.jobs import JobType, State, Submission
from services.lifecycle import Lifecycle
from tests.conftest import leaked_keys, wait_until
from tests.serving import Served, job_body, serving, settings_on

pytestmark = pytest.mark.both_servers

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def served(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = settings_on(server, tmp_path_factory.mktemp("submission"), max_wait_seconds=30)
    with serving(settings) as gateway:
        yield gateway
        gateway.clear()
        client: Any = gateway.lifecycle.client
        for name in ("tickets", "clock"):
            client.delete(gateway.lifecycle.keys("workers"), *client.scan_iter(f"{settings.prefix}{name}:*"))
        assert leaked_keys(client, settings.prefix) == []


@pytest.fixture(autouse=True)
def empty(served: Served) -> Iterator[None]:
    """Each test begins and ends with nothing that waits."""
    yield
    served.clear()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer.json()


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(MEDIA_TYPE)
    return [json.loads(line) for line in answer.text.splitlines()]


def post_lines(served: Served, *lines: Any, **headers: str) -> httpx.Response:
    body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.http.post("/v1/jobs", content=body, headers={"Content-Type": MEDIA_TYPE} | named)


def test_who_waits_gets_the_ended_job_with_its_result(served: Served) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(served.http.post, "/v1/jobs", json=job_body(), headers={"Prefer": "wait=25"})
        (held,) = wait_until(served.claim)
        result = Blobs(served.settings.data_dir).put("acme", "res", b'{"text": "done"}')
        served.end(held, result=result)
        whole = answer.result()
    assert (whole.status_code, whole.headers["preference-applied"]) == (200, "wait=25")
    assert (whole.json()["state"], whole.json()["result"]) == ("succeeded", {"text": "done"})
    assert whole.headers["location"] == f"/v1/jobs/{held.id}"
    assert whole.json() == served.http.get(whole.headers["location"]).json()


def test_a_repeat_that_waits_gets_the_job_that_has_ended(served: Served) -> None:
    named = {"Idempotency-Key": "waits", "Prefer": "wait=5"}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(served.http.post, "/v1/jobs", json=job_body(), headers=named)
        (held,) = wait_until(served.claim)
        served.end(held, "failed", problem={"detail": "no", "code": "broken", "status": 500})
        assert answer.result().json()["problem"]["code"] == "broken"
    again = served.http.post("/v1/jobs", json=job_body(), headers=named)
    assert (again.status_code, again.json()["id"], again.json()["state"]) == (200, held.id, "failed")


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=1", "wait=1"),
        ("wait=0", "wait=0"),
        ("respond-async", "respond-async"),
        ('foo; bar="a,b", respond-async;x=1, wait="0"', "respond-async, wait=0"),
        ("wait=0, wait=9", "wait=0"),
        ("wait=soon", None),
        ("wait=-1", None),
        ("wait", None),
        (",;=", None),
        ("return=minimal", None),
    ],
)
def test_what_has_not_ended_in_time_is_accepted(served: Served, prefer: str, applied: str | None) -> None:
    answer = served.http.post("/v1/jobs", json=job_body(), headers={"Prefer": prefer})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert answer.headers.get("preference-applied") == applied
    assert answer.headers["retry-after"] == "1"


def test_nobody_waits_longer_than_the_limit(served: Served, server: EmbeddedValkey) -> None:
    with serving(settings_on(server, served.settings.data_dir, max_wait_seconds=1)) as hasty:
        answer = hasty.http.post("/v1/jobs", json=job_body(), headers={"Prefer": "wait=999999999"})
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
        hasty.clear()


def test_each_line_is_a_job_or_a_problem_of_its_own(served: Served) -> None:
    answer = post_lines(
        served,
        job_body(external_id="L-1"),
        "{nonsense",
        "",
        job_body(type="summon"),
        job_body(colour="red"),
        '{"type": "generate", "input": {"prompt": "\\ud800"}}',
        job_body(external_id="L-2"),
        X_Request_ID="req-of-lines",
    )
    told = lines_of(answer)
    assert [one["line"] for one in told] == [1, 2, 4, 5, 6, 7]
    assert [one["status"] for one in told] == [202, 422, 422, 422, 422, 202]
    codes = [one["problem"]["code"] for one in told if "problem" in one]
    assert codes[:3] == ["request_invalid", "type_unknown", "request_invalid"]
    jobs = [one["job"] for one in told if "job" in one]
    assert [job["external_id"] for job in jobs] == ["L-1", "L-2"]
    assert {job["request_id"] for job in jobs} == {"req-of-lines"}
    assert [served.http.get(f"/v1/jobs/{job['id']}").json()["state"] for job in jobs] == ["queued", "queued"]


def test_a_line_that_the_gateway_fails_over_spoils_no_other(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(gateway: Any, principal: Any, wanted: JobRequest, *rest: Any) -> Built:
        if wanted.external_id == "L-2":
            raise RuntimeError("a defect of ours")
        return build_or_find(gateway, principal, wanted, *rest)

    monkeypatch.setattr(job_lines, "build_or_find", build)
    told = lines_of(post_lines(served, *(job_body(external_id=f"L-{number}") for number in (1, 2, 3))))
    assert [one["status"] for one in told] == [202, 500, 202]
    assert told[1]["problem"]["code"] == "internal"
    assert "defect" not in json.dumps(told[1]), "what went wrong is for the log alone"


def test_lines_are_safe_to_repeat(served: Served) -> None:
    lines = [job_body(input={"prompt": "a"}), job_body(input={"prompt": "b"}, idempotency_key="own")]
    ids = [[one["job"]["id"] for one in lines_of(post_lines(served, *lines, Idempotency_Key="all"))] for _ in range(2)]
    assert ids[0] == ids[1]
    # The key of a line is that of a request with this one job.
    single = served.http.post("/v1/jobs", json=job_body(input={"prompt": "b"}), headers={"Idempotency-Key": "own"})
    assert single.json()["id"] == ids[0][1]
    changed = lines_of(post_lines(served, job_body(input={"prompt": "c"}), lines[1], Idempotency_Key="all"))
    assert [one["status"] for one in changed] == [422, 202]
    assert changed[0]["problem"]["code"] == "idempotency_mismatch"


def test_the_same_lines_sent_at_once_are_one_job_each(served: Served) -> None:
    lines = [job_body(input={"prompt": str(number)}, idempotency_key=f"race-{number}") for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: lines_of(post_lines(served, *lines)), range(8)))
    ids = {tuple(one["job"]["id"] for one in told) for told in answers}
    assert len(ids) == 1
    assert len(set(ids.pop())) == 20


def test_too_many_lines_and_none_queue_nothing(served: Served) -> None:
    problem(post_lines(served, *([job_body()] * (MOST_LINES + 1))), 413, "payload_too_large")
    problem(post_lines(served, "", " "), 422, "lines_missing")
    assert served.http.get("/v1/jobs", params={"state": "queued"}).json()["data"] == []


def ids(served: Served, **wanted: Any) -> list[str]:
    return [job["id"] for job in served.http.get("/v1/jobs", params=wanted).json()["data"]]


def test_jobs_are_found_by_what_the_client_calls_them(served: Served) -> None:
    first = served.submit(external_id="A/1 é", matter="M-1", metadata={"court": "Ohio", "year": "2026"})["id"]
    second = served.submit(external_id="A/1 é", matter="M-2", metadata={"court": "Ohio"})["id"]
    third = served.submit(matter="M-1", metadata={"court": "Utah", "external_id": "A/1 é"})["id"]
    assert ids(served, external_id="A/1 é") == [second, first]
    assert ids(served, matter="M-1") == [third, first]
    assert ids(served, **{"metadata.court": "Ohio"}) == [second, first]
    assert ids(served, **{"metadata.court": "Ohio", "metadata.year": "2026"}) == [first]
    assert ids(served, matter="M-2", external_id="A/1 é", type="generate", state="queued") == [second]
    assert ids(served, matter="M-2", type="embed") == []
    assert ids(served, external_id="A/1") == ids(served, **{"metadata.court": "*"}) == []
    served.lifecycle.cancel("acme", second)
    assert ids(served, external_id="A/1 é", state="queued") == [first]
    with served.client("rival") as rival:
        assert rival.get("/v1/jobs", params={"external_id": "A/1 é"}).json()["data"] == []


def test_what_a_job_was_found_by_goes_with_it(served: Served) -> None:
    client: Any = served.lifecycle.client
    gone = served.submit(external_id="trimmed", metadata={"k": "v"})["id"]
    kept = served.submit(metadata={"k": "v"})["id"]
    served.lifecycle.cancel("acme", gone)
    # As if its record had run out long ago.
    client.delete(served.lifecycle.keys("job", tenant="acme", id=gone))
    client.zadd(served.lifecycle.keys("jobs", tenant="acme"), {gone: 1.0})
    assert ids(served, external_id="trimmed") == []
    served.lifecycle.care()
    label = served.lifecycle.keys("label", tenant="acme", digest="*")
    held = [set(client.zrange(name, 0, -1)) for name in client.scan_iter(label)]
    assert not any(gone in members for members in held)
    assert client.hget(served.lifecycle.keys("labels", tenant="acme"), gone) is None
    assert ids(served, **{"metadata.k": "v"}) == [kept]


def test_times_that_cannot_be_are_refused(served: Served) -> None:
    now = datetime.now(UTC)
    past, soon, later = (str(now + timedelta(seconds=seconds)) for seconds in (-5, 60, 120))
    problem(served.http.post("/v1/jobs", json=job_body(expires_at=past)), 422, "time_past")
    problem(served.http.post("/v1/jobs", json=job_body(not_before=later, expires_at=soon)), 422, "time_invalid")
    problem(served.http.post("/v1/jobs", json=job_body(not_before="2030-01-01T00:00:00")), 422, "time_invalid")
    assert served.submit(not_before=soon, expires_at=later)["state"] == "scheduled"


def test_a_repeat_after_the_time_is_the_same_job(served: Served) -> None:
    body = job_body(expires_at=(datetime.now(UTC) + timedelta(seconds=1)).isoformat())

    def send() -> httpx.Response:
        return served.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "timed"})

    first = send().json()["id"]
    wait_until(lambda: served.http.get(f"/v1/jobs/{first}").json()["state"] == "expired")
    again = send()
    assert (again.status_code, again.json()["id"]) == (202, first)


def test_a_repeat_is_answered_by_its_job_also_where_it_would_be_refused_now(served: Served) -> None:
    def send(**headers: str) -> httpx.Response:
        return served.http.post("/v1/jobs", content=json.dumps(job_body()), headers=JSON | headers)

    once, lines = {"Idempotency-Key": "once"}, {"Idempotency-Key": "lines", "Content-Type": MEDIA_TYPE}
    first, of_line = send(**once).json()["id"], lines_of(send(**lines))[0]["job"]["id"]
    raw: Any = served.lifecycle.client
    worker = served.lifecycle.keys("worker", id="w1")
    raw.rename(worker, f"{worker}-away")
    try:
        wait_until(lambda: send().status_code == 422, 5, "no model any more")
        assert send(**once).json()["id"] == first
        assert lines_of(send(**lines))[0]["job"]["id"] == of_line
        another = served.http.post("/v1/jobs", json=job_body(priority="low"), headers=once)
        assert another.json()["code"] == "model_unknown"
    finally:
        raw.rename(f"{worker}-away", worker)


def test_what_fails_of_one_job_fails_of_no_other(served: Served) -> None:
    def job(tenant: str) -> Submission:
        return Submission(tenant, JobType.GENERATE, {"prompt": "x"})

    good, bad, also_good = served.lifecycle.submit_each([job("acme"), job("not|a tenant"), job("acme")])
    assert isinstance(bad, InvalidRequest)
    for answer in (good, also_good):
        assert isinstance(answer, tuple)
        assert served.lifecycle.get("acme", answer[0].id).state is State.QUEUED


@pytest.mark.parametrize("lane_limit", [True, False])
def test_the_least_urgent_is_shed_first(server: EmbeddedValkey, served: Served, *, lane_limit: bool) -> None:
    limits = {"max_backlog" if lane_limit else "max_tenant_backlog": 20}
    with serving(settings_on(server, served.settings.data_dir, **limits)) as small:
        small.lifecycle.client.hset(small.lifecycle.keys("service"), "generate", 40)
        waiting = 0
        for priority, most in (("bulk", 14), ("low", 16), ("normal", 18), ("high", 19), ("critical", 20)):
            while waiting < most:
                small.submit(priority=priority)
                waiting += 1
            refused = small.http.post("/v1/jobs", json=job_body(priority=priority))
            told = problem(refused, 429, "backlog_full")
            # One job and the room of a hundredth of the limit, 40 s each on four slots.
            assert refused.headers["retry-after"] == str(told["retry_after"]) in ("11", "12")
            assert told["retryable"]
        each = lines_of(post_lines(small, job_body(priority="critical")))
        assert (each[0]["status"], each[0]["problem"]["code"]) == (429, "backlog_full")
        small.clear()
        small.submit(priority="bulk")
        small.clear()


def test_jobs_for_later_are_as_many_as_may_wait(server: EmbeddedValkey, served: Served) -> None:
    """Else a tenant fills the lane at once when their time comes, and all others are refused."""
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    with serving(settings_on(server, served.settings.data_dir, max_tenant_backlog=10)) as small:
        jobs = [small.submit(not_before=later)["id"] for _ in range(9)]
        problem(small.http.post("/v1/jobs", json=job_body()), 429, "backlog_full")
        with small.client("zeta") as other:
            assert other.post("/v1/jobs", json=job_body()).status_code == 202
        small.http.delete(f"/v1/jobs/{jobs[0]}")
        small.submit()
        problem(small.http.post("/v1/jobs", json=job_body(not_before=later)), 429, "backlog_full")
        small.clear()
        assert small.lifecycle.client.hgetall(small.lifecycle.keys("waiting")).keys() <= {
            "generate|zeta",
            "generate|zeta|bytes",
        }


def test_bodies_that_are_not_jobs_are_refused(served: Served) -> None:
    send = served.http.post
    problem(send("/v1/jobs", content=b"a=b", headers={"Content-Type": "text/plain"}), 415, "media_type_unsupported")
    problem(send("/v1/jobs", content=b"{}", headers={"Content-Type": "application/json"}), 422, "request_invalid")
    problem(send("/v1/jobs"), 422, "request_invalid")
    big = b" " * (9 * 2**20)
    problem(send("/v1/jobs", content=big, headers={"Content-Type": MEDIA_TYPE}), 413, "payload_too_large")


def test_a_request_id_goes_with_the_job(served: Served) -> None:
    answer = served.http.post("/v1/jobs", json=job_body(), headers={"X-Request-ID": "case-17"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "case-17"
    assert served.http.get(answer.headers["location"]).json()["request_id"] == "case-17"
    (held,) = served.claim()
    assert held.request_id == "case-17"
    served.end(held)
    made = served.http.post("/v1/jobs", json=job_body(), headers={"X-Request-ID": "not an id"})
    assert made.headers["x-request-id"] == made.json()["request_id"] != "not an id"


def test_a_defect_of_the_gateways_is_found_in_its_log_by_the_requests_id(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr(Lifecycle, "get", fail)
    answer = served.http.get("/v1/jobs/job_1", headers={"X-Request-ID": "case-18", "Connection": "close"})
    problem(answer, 500, "internal")
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "case-18"


def test_fifty_at_once_that_wait_are_one_job(served: Served) -> None:
    named = {"Idempotency-Key": "fifty", "Prefer": "wait=20"}
    started = threading.Barrier(51)

    def send(_: int) -> httpx.Response:
        started.wait()
        return served.http.post("/v1/jobs", json=job_body(), headers=named)

    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(send, number) for number in range(50)]
        started.wait()
        (held,) = wait_until(served.claim)
        served.end(held, result=Blobs(served.settings.data_dir).put("acme", "res", b"{}"))
        assert {(one.result().status_code, one.result().json()["id"]) for one in answers} == {(200, held.id)}
    assert served.claim() == []
