"""The gateway is killed before each step of a request in turn; who repeats the request finds one whole thing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.access import Access
from services.blobs import Blobs
from services.lifecycle import Lifecycle
from tests.chaos.installation import ENDS, ended_once, event_names, mortal_gateway, real_worker
from tests.conftest import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork")

# More than a record may hold, so that it lies in a blob.
PROMPT = "notice " * 3000


@pytest.fixture
def gateway(queue: Lifecycle) -> Iterator[httpx.Client]:
    """A gateway that dies on request, and a worker with every lane."""
    key = Access(queue.client, queue.keys).create("chaos", tenant="acme")
    with ExitStack() as stack:
        stack.enter_context(real_worker(queue.settings, "all", "generate,extract"))
        client = stack.enter_context(mortal_gateway(queue.settings, key))
        wait_until(lambda: client.get("/v1/workers").json()["data"], 60, "the worker's announcement")
        yield client


def answered(send: Callable[[], httpx.Response]) -> httpx.Response:
    """The first answer that arrives whole, as a client gets it that repeats its request."""

    def attempt() -> httpx.Response | None:
        try:
            return send()
        except httpx.TransportError:
            return None

    return wait_until(attempt, 60, "an answer")


def deaths(send: Callable[[int, dict[str, str]], httpx.Response]) -> int:
    """Sends request after request, each to die one step later, until one survives; answers how many died."""
    for steps in range(1, 200):
        try:
            send(steps, {"die-at": str(steps)})
        except httpx.TransportError:
            continue
        return steps - 1
    raise AssertionError("the request has no end")


def jobs_of(queue: Lifecycle) -> list[str]:
    raw: Any = queue.client
    return raw.zrange(queue.keys("jobs", tenant="acme"), 0, -1)


def submission(number: int) -> dict[str, Any]:
    return {"type": "generate", "input": {"prompt": f"{number} {PROMPT}", "max_tokens": 8}}


def test_a_submission_cut_off_at_any_step_is_one_job_when_repeated(queue: Lifecycle, gateway: httpx.Client) -> None:
    ids: list[str] = []

    def send(number: int, headers: dict[str, str]) -> httpx.Response:
        named = {"Idempotency-Key": f"key-{number}"}
        before = jobs_of(queue)
        try:
            return gateway.post("/v1/jobs", json=submission(number), headers=named | headers)
        finally:
            # Nothing half done: the job is not there, or all of it is.
            for job in set(jobs_of(queue)) - set(before):
                assert event_names(queue, job)[0] == "queued"
            post = lambda: gateway.post("/v1/jobs", json=submission(number), headers=named)  # noqa: E731
            repeats = [answered(post) for _ in range(2)]
            assert [repeat.status_code for repeat in repeats] == [202, 202]
            assert len({repeat.json()["id"] for repeat in repeats}) == 1
            ids.append(repeats[0].json()["id"])

    # The key checked, the blob opened, synced and renamed, the script run, two parts of an answer: each a death.
    assert deaths(send) >= 10
    assert sorted(ids) == sorted(jobs_of(queue))
    records = ended_once(queue, ids)
    assert {(record.state.value, record.attempt) for record in records} == {("succeeded", 1)}


def test_fifty_at_once_with_one_key_are_one_job(queue: Lifecycle, gateway: httpx.Client) -> None:
    def send(number: int) -> str:
        # Some die, each at a step of its own, and take along whatever runs beside them.
        headers = {"Idempotency-Key": "one", "die-at": str(number)} if number % 10 == 5 else {"Idempotency-Key": "one"}
        try:
            return gateway.post("/v1/jobs", json=submission(0), headers=headers).json()["id"]
        except httpx.TransportError:
            named = {"Idempotency-Key": "one"}
            answer = answered(lambda: gateway.post("/v1/jobs", json=submission(0), headers=named))
            return answer.json()["id"]

    with ThreadPoolExecutor(50) as pool:
        ids = list(pool.map(send, range(50)))
    assert ids == jobs_of(queue) * 50
    ended_once(queue, jobs_of(queue))


@pytest.mark.slow
def test_an_upload_cut_off_at_any_step_is_one_document_when_repeated(queue: Lifecycle, gateway: httpx.Client) -> None:
    raw: Any = queue.client
    index, blobs = queue.keys("documents", tenant="acme"), Blobs(queue.settings.data_dir)
    documents: list[str] = []

    def send(number: int, headers: dict[str, str]) -> httpx.Response:
        body = f"Lease number {number}. The tenant shall pay rent. Either party may terminate on notice."

        def post(extra: dict[str, str]) -> httpx.Response:
            return gateway.post("/v1/documents", params={"name": f"{number}.txt"}, content=body, headers=extra)

        try:
            return post(headers)
        finally:
            # A record is there after its bytes.
            assert all(blobs.exists("acme", document) for document in raw.zrange(index, 0, -1))
            answer = answered(lambda: post({}))
            assert answer.status_code == 201, answer.text
            documents.append(answer.json()["id"])
            assert (
                gateway.get(f"/v1/documents/{documents[-1]}/text").json()["text"].startswith(f"Lease number {number}")
            )

    assert deaths(send) >= 10
    assert sorted(documents) == sorted(raw.zrange(index, 0, -1))
    # A repeat may have asked for a second reading, but each ends once and their outcome is one text a document.
    assert {record.state.value for record in ended_once(queue, jobs_of(queue))} <= set(ENDS)
    stored = list((Path(queue.settings.data_dir) / "blobs" / "acme").glob("*/doc_*"))
    assert sorted(path.name for path in stored) == sorted(documents)
