"""Idempotency keys as clients race with them: one thing is made whatever comes at once, and it is the first one's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.stack.valkey import EmbeddedValkey
from tests.serving import Served, job_body, serving, settings_on

AT_ONCE = 50
FEW = settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
FUZZ = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = count()


@pytest.fixture(scope="module")
def served(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_on(server, tmp_path_factory.mktemp("idempotent"), max_wait_seconds=0)) as gateway:
        yield gateway
        gateway.clear()


def at_once(sends: Sequence[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    """Send them all in the same moment."""
    started = Barrier(len(sends))

    def send(one: Callable[[], httpx.Response]) -> httpx.Response:
        started.wait()
        return one()

    with ThreadPoolExecutor(len(sends)) as pool:
        return list(pool.map(send, sends))


def job(served: Served, key: str, payload: int) -> Callable[[], httpx.Response]:
    body = job_body(input={"prompt": f"payload {payload}"}, matter=key)
    return lambda: served.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})


def line(served: Served, key: str, payload: int) -> Callable[[], httpx.Response]:
    body = job_body(input={"prompt": f"payload {payload}"}, matter=key, idempotency_key=key)
    headers = {"Content-Type": "application/x-ndjson"}
    return lambda: served.http.post("/v1/jobs", content=json.dumps(body), headers=headers)


def run(served: Served, key: str, payload: int) -> Callable[[], httpx.Response]:
    body = {"name": f"payload {payload}", "open": True, "type": "extract", "matter": key}
    return lambda: served.http.post("/v1/runs", json=body, headers={"Idempotency-Key": key})


def told(answer: httpx.Response) -> tuple[int, dict[str, Any]]:
    """Status and body, those of its line where it is one."""
    body = answer.json()
    return (body["status"], body.get("job") or body["problem"]) if "line" in body else (answer.status_code, body)


@pytest.mark.parametrize("make", [job, line, run])
@given(payloads=st.lists(st.integers(0, 2), min_size=AT_ONCE, max_size=AT_ONCE))
@FEW
def test_fifty_at_once_make_one_thing_of_the_first_payload(
    served: Served, make: Callable[[Served, str, int], Callable[[], httpx.Response]], payloads: list[int]
) -> None:
    key = f"race-{next(numbers)}"
    answers = [told(answer) for answer in at_once([make(served, key, payload) for payload in payloads])]
    won = {payload for payload, (status, _) in zip(payloads, answers, strict=True) if status == 202}
    assert len(won) == 1
    assert len({body["id"] for status, body in answers if status == 202}) == 1
    for payload, (status, body) in zip(payloads, answers, strict=True):
        assert (status == 202) == (payload in won)
        assert status == 202 or (status, body["code"]) == (422, "idempotency_mismatch")
    path = "/v1/runs" if make is run else f"/v1/jobs?matter={key}"
    made = [one for one in served.http.get(path, params={"limit": 200}).json()["data"] if one["matter"] == key]
    assert len(made) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.sampled_from([job, line])), max_size=12))
@FUZZ
def test_a_key_stands_for_its_first_request_whatever_follows(
    served: Served, requests: list[tuple[str, int, Any]]
) -> None:
    """Alone or as a line, a job under a key is the same request."""
    house, known = f"order-{next(numbers)}", dict[str, tuple[int, str]]()
    for name, payload, make in requests:
        key = f"{house}-{name}"
        status, body = told(make(served, key, payload)())
        first, made = known.setdefault(key, (payload, body.get("id", "")))
        assert (status, body.get("id", made)) == (202 if payload == first else 422, made)
