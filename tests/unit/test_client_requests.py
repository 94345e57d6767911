"""What the client sends is what was asked for, and what comes back is taken for an answer only where it is one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from casemill import Invalid, Unavailable, Unfinished
from tests.scripted_gateway import Gateway, event, job, stream


@pytest.mark.parametrize("params", [None, {"state": "queued"}])
def test_a_query_in_the_path_is_sent(gateway: Gateway, params: Any) -> None:
    gateway.do(lambda client: client.request("GET", "/v1/runs?limit=2&q=%C3%BC+x", params=params), {"data": []})
    assert dict(gateway.asked[0].url.params) == {"limit": "2", "q": "ü x"} | (params or {})
    gateway.do(lambda client: client.download("/v1/runs/run_1/results?format=csv", params=params), [])
    assert dict(gateway.asked[0].url.params) == {"format": "csv"} | (params or {})
    gateway.do(lambda client: client.jobs.get("a?b=c"), job())
    assert gateway.asked[0].url.raw_path == b"/v1/jobs/a%3Fb%3Dc"


DOCUMENT = {"id": "doc_1", "name": "n", "bytes": 4, "created_at": "2030-01-31T08:00:00Z"}


def test_a_review_that_takes_too_long_can_be_asked_for_again(gateway: Gateway) -> None:
    def review(client: Any) -> Any:
        return client.review(b"text", idempotency_key="mine", timeout=5)

    def pass_time(_: httpx.Request) -> Exception:
        gateway.clock.now += 5
        return httpx.ReadTimeout("silent")

    with pytest.raises(Unfinished) as raised:
        gateway.do(review, DOCUMENT, job(), pass_time)
    assert raised.value.work == "job_1"
    done = job("succeeded", result={"risk": {}})
    assert gateway.do(review, DOCUMENT, job(), stream(event(1, "succeeded")), done) == {"risk": {}}
    assert gateway.header("idempotency-key")[1] == "mine"


def test_a_key_of_any_letters_is_sent_as_utf_8(gateway: Gateway) -> None:
    gateway.do(lambda client: client.jobs.submit("embed", idempotency_key="Prüfung № 3"), job())
    assert (b"Idempotency-Key", "Prüfung № 3".encode()) in gateway.asked[0].headers.raw


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308])
def test_a_redirect_is_no_answer(gateway: Gateway, status: int) -> None:
    def redirect(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"Location": "https://gateway.test/"}, stream=stream(b"moved")(_).stream)

    for call in (
        lambda client: client.jobs.submit("embed"),
        lambda client: client.download("/v1/runs/run_1/results"),
    ):
        with pytest.raises(Invalid) as raised:
            gateway.do(call, redirect)
        assert (raised.value.code, raised.value.status) == ("redirected", status)
        assert "https://gateway.test/" in raised.value.detail
        assert len(gateway.asked) == 1


def test_an_answer_of_another_shape_is_a_problem(gateway: Gateway) -> None:
    strange = {"id": "job_1", "state": {"secret": "of the client"}}
    lines = httpx.Response(200, text='{"status": 202, "job": {}}\n')
    for call, *script in (
        (lambda client: client.jobs.get("job_1"), strange),
        (lambda client: client.jobs.list(), {"data": [strange], "next_cursor": None}),
        (lambda client: client.jobs.list(), {"rows": []}),
        (lambda client: client.jobs.list(), []),
        (lambda client: client.jobs.wait("job_1"), stream(event(1, "succeeded")), strange),
        (lambda client: client.jobs.wait("job_1"), stream(event(1, "succeeded")), []),
    ):
        with pytest.raises(Unavailable) as raised:
            gateway.do(call, *script)
        assert raised.value.code == "answer_invalid"
        assert "secret" not in str(raised.value)
    (outcome,) = gateway.do(lambda client: client.jobs.submit_many([{"type": "embed"}]), lines)
    assert outcome.code == "answer_invalid"
    (outcome,) = gateway.do(lambda client: client.jobs.submit_many([{"type": "embed"}]), httpx.Response(200, text="<"))
    assert outcome.code == "answer_invalid"
