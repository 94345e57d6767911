"""What follows a whole tenant: filters, other tenants, and a gateway that is killed while clients follow."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest
from starlette.concurrency import run_in_threadpool

from gateway import external_ids
from gateway import following as gateway_following
from gateway.stack.valkey import EmbeddedValkey, free_port
from services.access import Access
from services.errors import Permanent
from services.events import Event
from services.jobs import JobType, Submission
from services.lifecycle import Lifecycle
from services.sealed_records import SealedRecords
from services.settings import Settings
from tests.conftest import wait_until
from tests.serving import CPU, Served, gateway_process, serving, settings_on

Seen = tuple[str, str, str]  # id, event, job or run


@pytest.fixture(scope="module")
def served(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_on(server, tmp_path_factory.mktemp("events"))) as gateway:
        yield gateway
        gateway.clear()


@contextmanager
def following(client: httpx.Client, path: str = "/v1/events", **wanted: Any) -> Generator[Iterator[Seen]]:
    """The events of a stream, once it has begun."""
    headers = {"Last-Event-ID": wanted.pop("after")} if "after" in wanted else {}
    with client.stream("GET", path, params=wanted, headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        yield _events(answer.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[Seen]:
    told: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        told[name] = value
        if name == "data":
            data: dict[str, Any] = httpx.Response(200, text=value).json()
            yield told["id"], told["event"], str(data.get("job") or data.get("run") or "")


def test_a_tenant_is_followed_by_matter_and_run(served: Served) -> None:
    with following(served.http) as everything, following(served.http, matter="M-1") as one:
        assert [next(stream)[1] for stream in (everything, one)] == ["ready", "ready"]
        with served.client("rival") as rival, following(rival) as foreign:
            assert next(foreign)[1] == "ready"
            other = served.submit(matter="M-2")["id"]
            mine = served.submit(matter="M-1")["id"]
            run = served.http.post("/v1/runs", json={"open": True, "type": "extract"}).json()["id"]
            served.http.post(f"/v1/runs/{run}/pause")
            served.http.delete(f"/v1/runs/{run}")
            seen = [next(everything)[1:] for _ in range(5)]
            # The rival's own comes next in its stream: nothing of the others' was before it.
            served.access.create("x", tenant="rival")
            job, _ = served.lifecycle.submit(Submission("rival", JobType.GENERATE, {"prompt": "x"}))
            assert next(foreign)[1:] == ("queued", job.id)
            served.lifecycle.cancel("rival", job.id)
        assert seen == [
            ("queued", other),
            ("queued", mine),
            ("waiting", run),
            ("paused", run),
            ("cancelled", run),
        ]
        served.lifecycle.cancel("acme", mine)
        assert [next(one)[1:] for _ in range(2)] == [("queued", mine), ("cancelled", mine)]
    with following(served.http, run=run, after="0") as of_run:
        assert [next(of_run)[1] for _ in range(4)] == ["ready", "waiting", "paused", "cancelled"]


def test_a_key_for_a_matter_follows_that_matter_alone(served: Served) -> None:
    key = served.access.create("m", tenant="acme", scopes=("submit", "read"), matters=["M-7"])
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=30, trust_env=False) as restricted:
        with following(restricted) as stream:
            assert next(stream)[1] == "ready"
            for matter in ("M-8", None):
                served.submit(matter=matter)
            mine = served.submit(matter="M-7")["id"]
            assert next(stream)[1:] == ("queued", mine)
        with following(restricted, matter="M-8", after="0") as stream:
            assert next(stream)[1] == "ready"
            served.submit(matter="M-8")
            assert next(stream)[1] == "idle"


def test_who_sees_nothing_of_much_is_told_where_it_stands(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_: Any, **__: Any) -> AsyncGenerator[list[Event]]:
        yield [Event("1-0", "ready", {})]
        for number in range(2, 200):
            yield [Event(f"{number}-0", "queued", {"job": "job_1", "matter": "M-2"})]
            await anyio.sleep(0.01)

    monkeypatch.setattr(gateway_following, "follow_tenant", busy)
    monkeypatch.setattr(gateway_following, "KEEPALIVE_SECONDS", 0.1)
    with following(served.http, matter="M-1") as stream:
        assert next(stream) == ("1-0", "ready", "")
        ids = [int(told.partition("-")[0]) for told, event, _ in (next(stream), next(stream)) if event == "idle"]
    assert 1 < ids[0] < ids[1]


def test_the_clients_own_name_is_told_until_it_is_erased(served: Served) -> None:
    job = served.submit(matter="M-3", external_id="2031-17")["id"]
    unnamed = served.submit(matter="M-3")["id"]

    def told() -> dict[str, str]:
        headers = {"Last-Event-ID": "0"}
        with served.http.stream("GET", "/v1/events", params={"matter": "M-3"}, headers=headers) as answer:
            lines = (line for line in answer.iter_lines() if line.startswith("data: ") and "job" in line)
            found = [json.loads(next(lines).removeprefix("data: ")) for _ in range(2)]
        assert not any("named" in data for data in found)
        return {data["job"]: data["external_id"] for data in found}

    assert told() == {job: "2031-17", unnamed: ""}
    assert served.http.delete("/v1/matters/M-3").status_code == 200
    wait_until(lambda: told() == {job: "", unnamed: ""}, 10, "what was known a second ago")


def test_a_replay_asks_for_the_names_of_many_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = {served.submit(matter="M-4", external_id=str(number))["id"]: str(number) for number in range(20)}
    reads = list[str]()

    async def counted(read: Any, tenant: str, asked: Any) -> Any:
        reads.append(tenant)
        return await run_in_threadpool(read, tenant, asked)

    monkeypatch.setattr(external_ids, "run_in_threadpool", counted)
    headers = {"Last-Event-ID": "0"}
    with served.http.stream("GET", "/v1/events", params={"matter": "M-4"}, headers=headers) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: ") and "job" in line)
        told = [json.loads(next(lines).removeprefix("data: ")) for _ in jobs]
    assert {data["job"]: data["external_id"] for data in told} == jobs
    assert reads == ["acme"]


def test_a_name_that_cannot_be_opened_interrupts_the_stream(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> Any:
        raise Permanent("this key cannot be read", code="data_key_damaged")

    monkeypatch.setattr(SealedRecords, "external_id", damaged)
    served.submit(matter="M-5", external_id="x")
    headers = {"Last-Event-ID": "0"}
    with served.http.stream("GET", "/v1/events", params={"matter": "M-5"}, headers=headers) as answer:
        lines = list(answer.iter_lines())
    assert "event: interrupted" in lines
    assert '"data_key_damaged"' in lines[-2]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_who_follows_a_gateway_that_is_killed_misses_nothing(settings: Settings, lifecycle: Lifecycle) -> None:
    settings = settings.model_copy(update={"port": free_port()})
    key = Access(lifecycle.client, lifecycle.keys).create("test", tenant="acme")
    tokens = 60
    told: list[Seen] = []
    states: list[Seen] = []
    job, _ = lifecycle.submit(Submission("acme", JobType.GENERATE, {"prompt": "x"}))
    (held,) = lifecycle.work([], lane=job.lane, devices=CPU, worker="w1", n=1)[1]
    path = f"/v1/jobs/{job.id}/events"
    http = httpx.Client(
        base_url=settings.local_url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
    )

    def follow(path: str, found: list[Seen], end: str = "cancelled") -> None:
        """All events to the end, by as many connections as it takes."""
        while not found or found[-1][1] != end:
            try:
                with following(http, path, after=found[-1][0] if found else "0") as stream:
                    for one in stream:
                        found.append(one)
                        if one[1] == end:
                            break
            except httpx.TransportError:
                wait_until(alive, 60)

    def alive() -> bool:
        try:
            return http.get("/livez").status_code == 200
        except httpx.TransportError:
            return False

    with http, ThreadPoolExecutor(2) as pool:
        with gateway_process(settings):
            wait_until(alive, 60)
            followers = [pool.submit(follow, path, told), pool.submit(follow, "/v1/events", states)]
            for number in range(tokens):
                lifecycle.append(held, "token", {"text": str(number)})
                if number == tokens // 3:
                    wait_until(lambda: len(told) > tokens // 3 and states)
        # Killed; what happens now is seen by whoever comes back.
        lifecycle.append(held, "token", {"text": "while it was away"})
        other, _ = lifecycle.submit(Submission("acme", JobType.GENERATE, {"prompt": "z"}))
        with gateway_process(settings):
            wait_until(alive, 60)
            lifecycle.append(held, "token", {"text": "again"})
            lifecycle.cancel("acme", job.id)
            lifecycle.care(dead_workers=["w1"])
            for follower in followers:
                follower.result(60)
    raw: Any = lifecycle.client
    for name, seen in (("events", told), ("tenant_events", states)):
        parts = {"tenant": "acme"} | ({"id": job.id} if name == "events" else {})
        kept = [row[0] for row in raw.xrange(lifecycle.keys(name, **parts))]
        ids = [one[0] for one in seen if one[1] not in ("ready", "idle")]
        assert ids == kept[: len(ids)]
    assert len(told) == tokens + 5
    assert (other.id, "queued") in [(one[2], one[1]) for one in states]
    for row in raw.zrange(lifecycle.keys("jobs", tenant="acme"), 0, -1):
        lifecycle.cancel("acme", row)
    for name in ("clock", "tickets"):
        raw.delete("-", *raw.scan_iter(f"{settings.prefix}{name}:*"))
