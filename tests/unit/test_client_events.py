"""Following a job to its end: over lost connections and early ends, within the caller's time, missing nothing."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from casemill import JobFailed, RetryPolicy, Unauthorized, Unavailable, Unfinished, Unreachable
from casemill.following import LATE_SECONDS
from casemill.lines import EventLines, Lines
from tests.both_clients import first
from tests.scripted_gateway import Gateway, event, job, problem, stream

AWAY, BROKEN = httpx.ConnectError("refused"), httpx.ReadError("reset")
RUNNING, TOKEN, DONE = event(1, "running"), event(2, "token", text="Ü"), event(3, "succeeded")
ENDED = b'{"code": "redis_away", "detail": "Redis is away", "status": 503, "retryable": true}'
INTERRUPTED = b"event: interrupted\ndata: " + ENDED + b"\n\n"
IDLE = b": waiting\n\n"


def events(client: Any) -> Any:
    return client.jobs.events("job_1")


def wait(timeout: float | None = None) -> Callable[[Any], Any]:
    return lambda client: client.jobs.wait("job_1", timeout=timeout)


def names(found: list[Any]) -> list[str]:
    return [each.event for each in found]


@pytest.mark.parametrize("cut", range(len(RUNNING + TOKEN + DONE)))
def test_a_stream_cut_anywhere_is_taken_up_behind_the_last_event(gateway: Gateway, cut: int) -> None:
    whole = RUNNING + TOKEN + DONE

    def rest(request: httpx.Request) -> httpx.Response:
        last = request.headers.get("last-event-id", "0-0")
        came = b"".join(each for each in (RUNNING, TOKEN, DONE) if each.split()[1].decode() > last)
        return httpx.Response(200, content=came)

    script = (stream(whole[:cut], BROKEN), AWAY, rest, job("succeeded"))
    found = gateway.do(events, *script)
    assert names(found) == ["running", "token", "succeeded"]
    assert found[1].data == {"text": "Ü"}
    assert found[-1].final


def test_a_stream_that_ends_before_its_job_is_followed_on(gateway: Gateway) -> None:
    script = (stream(RUNNING, INTERRUPTED), job("running"), stream(TOKEN, DONE), job("succeeded"))
    assert names(gateway.do(events, *script)) == ["running", "interrupted", "token", "succeeded"]
    assert gateway.paths() == ["/v1/jobs/job_1/events", "/v1/jobs/job_1"] * 2
    assert gateway.header("last-event-id") == [None, None, "1-0", None]


def test_the_last_event_is_the_final_state_also_where_events_are_not_kept(gateway: Gateway) -> None:
    (only,) = gateway.do(events, stream(), job("expired"))
    assert (only.event, only.final, only.data) == ("expired", True, {"state": "expired"})
    found = gateway.do(lambda client: client.jobs.events("job_1", after="3-0"), stream(), job("succeeded"))
    assert gateway.header("last-event-id")[0] == "3-0"
    assert [(each.id, each.event) for each in found] == [("3-0", "succeeded")]


def test_a_job_that_was_retried_is_followed_to_its_second_end(gateway: Gateway) -> None:
    script = (stream(RUNNING, event(2, "failed")), job("running"), stream(DONE), job("succeeded"))
    assert names(gateway.do(events, *script)) == ["running", "failed", "succeeded"]
    assert gateway.header("last-event-id") == [None, None, "2-0", None]


def test_a_gateway_that_stays_away_is_given_up(gateway: Gateway) -> None:
    with pytest.raises(Unreachable):
        gateway.do(events, stream(RUNNING, BROKEN), AWAY, retry=RetryPolicy(attempts=5))
    assert len(gateway.clock.pauses) == 4


def test_a_stream_that_is_interrupted_time_and_again_is_given_up_for_its_reason(gateway: Gateway) -> None:
    for broken in (INTERRUPTED,), (INTERRUPTED, BROKEN):
        script = [stream(*broken), *([job("running")] if len(broken) == 1 else [])] * 3
        with pytest.raises(Unavailable) as raised:
            gateway.do(events, *script, retry=RetryPolicy(attempts=3))
        assert len(gateway.asked) == len(script)
        assert (raised.value.code, raised.value.detail) == ("redis_away", "Redis is away")
    with pytest.raises(Unreachable) as raised:
        gateway.do(events, *[stream(), job("running")] * 3, retry=RetryPolicy(attempts=3))
    assert raised.value.code == "gateway_away"


def test_tries_count_anew_with_every_sign_of_life(gateway: Gateway) -> None:
    script = [stream(IDLE, BROKEN)] * 20
    found = gateway.do(events, *script, stream(DONE), job("succeeded"), retry=RetryPolicy(attempts=3))
    assert names(found) == ["succeeded"]


def test_a_key_that_has_ended_ends_the_stream(gateway: Gateway) -> None:
    with pytest.raises(Unauthorized):
        gateway.do(events, stream(RUNNING, INTERRUPTED), problem(401, "key_ended"))


def test_waiting_answers_the_job_however_it_ended(gateway: Gateway) -> None:
    assert gateway.do(wait(), stream(RUNNING, DONE), job("succeeded", result={"text": "x"})).result == {"text": "x"}
    assert gateway.do(wait(), stream(RUNNING, event(3, "cancelled")), job("cancelled")).state == "cancelled"


def test_a_result_is_answered_or_says_why_there_is_none(gateway: Gateway) -> None:
    def result(client: Any) -> Any:
        return client.jobs.result("job_1")

    assert gateway.do(result, stream(DONE), job("succeeded", result={"text": "x"})) == {"text": "x"}
    failed = {"code": "context_exceeded", "detail": "too long", "status": 422}
    with pytest.raises(JobFailed) as raised:
        gateway.do(result, stream(event(3, "failed")), job("failed", problem=failed, request_id="req_1"))
    assert (raised.value.code, raised.value.job.state, raised.value.request_id) == (
        "context_exceeded",
        "failed",
        "req_1",
    )
    with pytest.raises(JobFailed) as raised:
        gateway.do(result, stream(event(3, "cancelled")), job("cancelled"))
    assert raised.value.code == "job_cancelled"
    erased = {"code": "result_gone", "detail": "erased", "status": 404}
    with pytest.raises(JobFailed) as raised:
        gateway.do(result, stream(DONE), job("succeeded", problem=erased))
    assert raised.value.code == "result_gone"


def test_waiting_ends_when_the_time_is_over(gateway: Gateway) -> None:
    begun = gateway.clock.now

    def silent(request: httpx.Request) -> httpx.Response:
        seconds = request.extensions["timeout"]["read"]

        def pass_time() -> None:
            gateway.clock.now += seconds
            raise httpx.ReadTimeout("silent")

        return httpx.Response(200, stream=stream_body(RUNNING, pass_time))

    def stream_body(*pieces: Any) -> Any:
        return stream(*pieces)(httpx.Request("GET", "/")).stream

    with pytest.raises(TimeoutError) as raised:
        gateway.do(wait(100), silent)
    assert isinstance(raised.value, Unfinished)
    assert (raised.value.work, pickle.loads(pickle.dumps(raised.value)).work) == ("job_1", "job_1")
    assert gateway.clock.now - begun == pytest.approx(100, abs=1)
    assert max(request.extensions["timeout"]["read"] for request in gateway.asked) == 35.0


def test_a_stream_that_only_says_that_it_is_there_ends_in_time_too(gateway: Gateway) -> None:
    begun = gateway.clock.now

    def idle(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json=job("running"))
        seconds = request.extensions["timeout"]["read"]

        def pass_time() -> None:
            gateway.clock.now += min(10.0, seconds)
            if seconds < 10:
                raise httpx.ReadTimeout("silent")

        return stream(*[pass_time, IDLE] * 20)(request)

    with pytest.raises(Unfinished):
        gateway.do(wait(64), idle)
    assert gateway.clock.now - begun == pytest.approx(64, abs=LATE_SECONDS)


@pytest.mark.parametrize("attempts", [1, 100])
def test_who_is_told_much_until_the_end_of_the_time_still_ends_in_time(gateway: Gateway, attempts: int) -> None:
    begun = gateway.clock.now
    waits: list[float] = []

    def talk(request: httpx.Request) -> httpx.Response:
        seconds, told = request.extensions["timeout"]["read"], int(gateway.clock.now - begun)
        waits.append(seconds - (begun + 60 - gateway.clock.now))

        def pass_time() -> None:
            silent = gateway.clock.now > begun + 57
            gateway.clock.now += seconds if silent else 0.3
            if silent:
                raise httpx.ReadTimeout("silent")

        return stream(*[pass_time, event(told, "token", text="x")] * 200)(request)

    with pytest.raises(Unfinished):
        gateway.do(wait(60), talk, retry=RetryPolicy(attempts=attempts))
    assert gateway.clock.now - begun <= 60 + LATE_SECONDS
    assert len(gateway.asked) < 40, "nobody is asked anew for every word"
    assert max(waits) <= 0, "no answer is waited for beyond the time"


def test_a_gateway_that_is_away_at_the_end_of_the_time_is_named_as_the_reason(gateway: Gateway) -> None:
    begun = gateway.clock.now
    with pytest.raises(Unfinished) as raised:
        gateway.do(wait(3), AWAY)
    assert isinstance(raised.value.__cause__, Unreachable)
    assert raised.value.work == "job_1"
    assert "job_1" in raised.value.detail
    assert gateway.clock.now - begun <= 3


def test_everything_is_followed_without_end_and_nothing_missed(gateway: Gateway) -> None:
    ready, done, idle = event(4, "ready"), event(5, "succeeded", job="job_1"), event(9, "idle")
    whole = (ready, done, event(6, "failed", run="run_1"), idle)
    script = (stream(*whole), AWAY, stream(event(9, "gap"), INTERRUPTED), problem(401, "key_ended"))

    def everything(client: Any) -> Any:
        return client.events(after="3-0", matter="M-1")

    seen = gateway.do(lambda client: first(6, everything(client)), *script)
    assert names(seen) == ["ready", "succeeded", "failed", "idle", "gap", "interrupted"]
    assert seen[1].data == {"job": "job_1"}
    with pytest.raises(Unauthorized):
        gateway.do(everything, *script)
    assert gateway.paths() == ["/v1/events"] * 4
    assert gateway.header("last-event-id") == ["3-0", "9-0", "9-0", "9-0"]
    assert {tuple(request.url.params.items()) for request in gateway.asked} == {(("matter", "M-1"),)}
    assert {request.extensions["timeout"]["read"] for request in gateway.asked} == {35.0}
    with pytest.raises(Unreachable):
        gateway.do(lambda client: client.events(), stream(ready, BROKEN), AWAY, retry=RetryPolicy(attempts=3))
    assert gateway.header("last-event-id") == [None, "4-0", "4-0"]


def test_pages_are_asked_for_as_their_rows_are_taken(gateway: Gateway) -> None:
    def page(request: httpx.Request) -> dict[str, Any]:
        number = int(request.url.params.get("cursor", "1"))
        return {"data": [job(id=f"job_{number}")] * 2, "next_cursor": str(number + 1) if number < 3 else None}

    def listed(client: Any) -> Any:
        return client.jobs.list(state=["queued", "running"], metadata={"case": "C-17"})

    found = gateway.do(listed, page)
    assert [each.id for each in found] == ["job_1", "job_1", "job_2", "job_2", "job_3", "job_3"]
    assert len(gateway.asked) == 3
    sent = gateway.asked[1].url.params
    assert (sent.get_list("state"), sent["metadata.case"], sent["cursor"]) == (["queued", "running"], "C-17", "2")


def test_lines_are_whole_wherever_the_pieces_are_cut() -> None:
    text = 'a\u2028b\n\n{"x": "\x85"}\r\nlast\n'.encode()
    for cut in range(len(text)):
        lines = Lines()
        assert [*lines.feed(text[:cut]), *lines.feed(text[cut:])] == [
            "a\u2028b".encode(), b"", '{"x": "\x85"}'.encode(), b"last",
        ]  # fmt: skip
    assert EventLines().feed(b"data:1\n\n:x\n\nevent: e\n\n")[0].data == 1
