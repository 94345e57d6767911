"""The client asks again where that is safe, waits longer each time or as it is told, and gives up in the end."""

from __future__ import annotations

import json
import pickle
from typing import Any

import httpx
import pytest

from casemill import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Problem,
    RetryPolicy,
    Throttled,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from tests.scripted_gateway import Gateway, job, problem

AWAY = httpx.ConnectError("refused")
BROKEN = httpx.ReadError("reset")


def submit(client: Any) -> Any:
    return client.jobs.submit("generate", input={"prompt": "hello"})


def post(client: Any) -> Any:
    return client.request("POST", "/v1/webhooks", body={})


def test_a_submission_is_the_same_one_at_every_try(gateway: Gateway) -> None:
    script = (AWAY, BROKEN, httpx.ReadTimeout("silent"), problem(503), problem(429), problem(502), job())
    assert gateway.do(submit, *script).id == "job_1"
    assert len(gateway.asked) == 7
    (key,) = set(gateway.header("idempotency-key"))
    assert key
    assert len({request.content for request in gateway.asked}) == 1
    for number, pause in enumerate(gateway.clock.pauses):
        longest = min(8.0, 0.2 * 2**number)
        assert longest / 2 <= pause <= longest
    gateway.do(submit, job())
    assert gateway.header("idempotency-key") != [key]
    gateway.do(lambda client: client.jobs.submit("generate", idempotency_key="mine"), job())
    assert gateway.header("idempotency-key") == ["mine"]


def test_pauses_are_not_all_alike(gateway: Gateway) -> None:
    for _ in range(4):
        gateway.do(submit, AWAY, job())
    assert len(set(gateway.clock.pauses)) > 1


@pytest.mark.parametrize("status", [429, 503])
def test_who_is_told_when_to_come_back_comes_no_sooner(gateway: Gateway, status: int) -> None:
    gateway.do(submit, problem(status, headers={"Retry-After": "7"}), job())
    assert 7.1 <= gateway.clock.pauses[0] <= 7.2


def test_tries_are_bounded_in_number(gateway: Gateway) -> None:
    with pytest.raises(Unreachable) as raised:
        gateway.do(submit, AWAY, retry=RetryPolicy(attempts=4))
    assert len(gateway.asked) == 4
    assert len(gateway.clock.pauses) == 3
    assert raised.value.code == "gateway_away"
    assert "http://gateway.test" in raised.value.detail
    assert raised.value.status is None
    assert raised.value.retryable


def test_tries_are_bounded_in_time(gateway: Gateway) -> None:
    with pytest.raises(Unreachable):
        gateway.do(submit, AWAY, retry=RetryPolicy(attempts=1000, seconds=30, first=4, longest=4))
    assert 26 <= sum(gateway.clock.pauses) <= 30


def test_a_gateway_that_restarts_for_a_while_is_waited_for(gateway: Gateway) -> None:
    begun = gateway.clock.now

    def away_for(seconds: float) -> Any:
        return lambda _: AWAY if gateway.clock.now < begun + seconds else job()

    assert gateway.do(submit, away_for(45)).id == "job_1"
    begun = gateway.clock.now
    with pytest.raises(Unreachable):
        gateway.do(submit, away_for(90))
    assert 50 < gateway.clock.now - begun <= 60


def test_a_pause_beyond_the_time_is_left_to_the_caller(gateway: Gateway) -> None:
    with pytest.raises(Throttled) as raised:
        gateway.do(submit, problem(429, "backlog_full", headers={"Retry-After": "600"}))
    assert gateway.clock.pauses == []
    assert (raised.value.code, raised.value.retry_after, raised.value.request_id) == ("backlog_full", 600.0, "req_1")


@pytest.mark.parametrize("outcome", [BROKEN, httpx.ReadTimeout("silent"), problem(503), problem(502)])
def test_what_may_have_been_done_is_not_asked_again(gateway: Gateway, outcome: Any) -> None:
    with pytest.raises(Unavailable):
        gateway.do(post, outcome, {"id": "wh_1"})
    assert len(gateway.asked) == 1

    def keyed(client: Any) -> Any:
        return client.request("POST", "/v1/search", idempotency_key="k")

    assert gateway.do(keyed, outcome, {"id": "job_1"}) == {"id": "job_1"}
    assert gateway.header("idempotency-key") == ["k", "k"]


@pytest.mark.parametrize("outcome", [AWAY, httpx.ConnectTimeout("slow"), problem(429)])
def test_what_cannot_have_been_done_is_asked_again(gateway: Gateway, outcome: Any) -> None:
    assert gateway.do(post, outcome, {"id": "wh_1"}) == {"id": "wh_1"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (413, Invalid),
        (422, Invalid),
        (500, Unavailable),
    ],
)
def test_other_refusals_are_final_and_typed(gateway: Gateway, status: int, kind: type[Problem]) -> None:
    with pytest.raises(kind) as raised:
        gateway.do(submit, problem(status, "why"), job())
    assert type(raised.value) is kind
    assert (raised.value.code, raised.value.status, raised.value.detail) == ("why", status, "what to do")
    assert raised.value.body["request_id"] == "req_1"
    elsewhere = pickle.loads(pickle.dumps(raised.value))
    assert (type(elsewhere), str(elsewhere), vars(elsewhere)) == (kind, str(raised.value), vars(raised.value))
    assert len(gateway.asked) == 1


def test_what_is_no_answer_of_a_gateway_is_named(gateway: Gateway) -> None:
    with pytest.raises(Unavailable) as raised:
        gateway.do(submit, httpx.Response(500, text="<h1>nginx</h1>", headers={"X-Request-ID": "req_2"}))
    assert (raised.value.code, raised.value.request_id) == ("http_500", "req_2")
    assert "nginx" in raised.value.detail
    with pytest.raises(Unavailable) as raised:
        gateway.do(submit, httpx.Response(200, text="<h1>log in</h1>"))
    assert raised.value.code == "answer_invalid"


def test_uploading_again_is_safe(gateway: Gateway, tmp_path: Any) -> None:
    file = tmp_path / "contract ü.txt"
    file.write_bytes(b"\xff\x00 a contract")
    view = {"id": "doc_1", "name": "contract ü.txt", "bytes": 13, "created_at": "2030-01-31T08:00:00Z", "pages": 1}
    document = gateway.do(lambda client: client.documents.upload(file, matter="M-1"), BROKEN, view)
    assert (document.id, document.pages, document.matter) == ("doc_1", 1, None)
    assert [request.content for request in gateway.asked] == [b"\xff\x00 a contract"] * 2
    assert dict(gateway.asked[1].url.params) == {"name": "contract ü.txt", "matter": "M-1", "read": "true"}
    gateway.do(lambda client: client.documents.upload(b"text", name="n", read=False), view)
    assert dict(gateway.asked[0].url.params) == {"name": "n", "read": "false"}


def test_many_jobs_go_in_requests_of_a_thousand_each_safe_to_repeat(gateway: Gateway) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        lines = [json.loads(line) for line in request.content.split(b"\n")]
        told = [
            {"line": number, "status": 429, "problem": {"code": "backlog_full", "detail": "later\u2028", "status": 429}}
            if line["external_id"] == "1001"
            else {"line": number, "status": 202, "job": job(external_id=line["external_id"])}
            for number, line in enumerate(lines, 1)
        ]
        return httpx.Response(200, text="".join(json.dumps(line, ensure_ascii=False) + "\n" for line in told))

    def submit_many(client: Any) -> Any:
        return client.jobs.submit_many({"type": "embed", "external_id": str(n)} for n in range(1003))

    outcomes = gateway.do(submit_many, BROKEN, answer)
    assert [request.content.count(b"\n") + 1 for request in gateway.asked] == [1000, 1000, 3]
    first, again, second = gateway.header("idempotency-key")
    assert first == again != second
    refused = outcomes.pop(1001)
    assert isinstance(refused, Throttled)
    assert refused.code == "backlog_full"
    assert [outcome.external_id for outcome in outcomes] == [str(n) for n in range(1003) if n != 1001]
    assert gateway.do(lambda client: client.jobs.submit_many([])) == []
    large: list[Any] = [{"type": "embed", "input": {"texts": ["x" * 5_000_000]}, "external_id": str(n)} for n in (1, 2)]
    assert len(gateway.do(lambda client: client.jobs.submit_many(large), answer)) == 2
    assert len(gateway.asked) == 2


def test_a_request_of_many_jobs_that_fails_leaves_what_the_others_were_answered(gateway: Gateway) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        lines = [json.loads(line) for line in request.content.split(b"\n")]
        if lines[0]["external_id"] == "1000":
            return problem(503, "redis_away")(request)
        told = [{"status": 202, "job": job(external_id=line["external_id"])} for line in lines]
        return httpx.Response(200, text="\n".join(map(json.dumps, told)))

    def submit_many(client: Any) -> Any:
        return client.jobs.submit_many({"type": "embed", "external_id": str(n)} for n in range(2003))

    outcomes = gateway.do(submit_many, answer, retry=RetryPolicy(attempts=2))
    refused = outcomes[1000:2000]
    assert {(type(each), each.code) for each in refused} == {(Unavailable, "redis_away")}
    accepted = [*range(1000), *range(2000, 2003)]
    assert [outcomes[n].external_id for n in accepted] == [str(n) for n in accepted]
