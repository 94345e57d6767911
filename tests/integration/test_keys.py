"""Keys over HTTP: scopes, matters, rates, stored bytes, expiry, rotation, and what of it the audit log tells."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import while_allowed
from gateway.app import create_app
from services.access import Access
from services.audit import SYSTEM, Audit
from services.errors import Unauthorized
from services.jobs import Priority
from services.lifecycle import Lifecycle
from services.principal import Limits
from services.settings import Settings
from tests.conftest import wait_until
from tests.integration.test_gateway_alone import announce
from tests.integration.test_lifecycle import tidy
from tests.listening import served

__all__ = ["tidy"]

GENERATE: dict[str, Any] = {"type": "generate", "input": {"prompt": "hello", "max_tokens": 99}}


@dataclass
class Served:
    url: str
    lifecycle: Lifecycle
    access: Access
    audit: Audit
    data_dir: Path
    open: ExitStack

    def as_key(self, key: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"}
        return self.open.enter_context(httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False))

    def make(self, tenant: str = "acme", **asked: Any) -> httpx.Client:
        return self.as_key(self.access.create("k", tenant=tenant, **asked))

    def actions(self, tenant: str = "acme") -> list[str]:
        return [entry.fields["action"] for entry in self.audit.all(tenant)]


@pytest.fixture
def installation(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest.fixture
def gateway(installation: Settings, lifecycle: Lifecycle) -> Iterator[Served]:
    announce(lifecycle)
    client, keys = lifecycle.client, lifecycle.keys
    with served(create_app(installation)) as url, ExitStack() as clients:
        yield Served(url, lifecycle, Access(client, keys), Audit(client, keys), installation.data_dir, clients)
    lifecycle.client.delete(keys("worker", id="w1"), keys("workers"))


def refused(answer: httpx.Response, status: int, code: str) -> httpx.Response:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer


def test_requests_a_minute_are_counted_told_and_come_back(gateway: Served) -> None:
    key = gateway.access.create("k", tenant="acme", limits=Limits(requests=3))
    mine = gateway.as_key(key)
    lefts = [mine.get("/v1/jobs").headers["x-ratelimit-remaining-requests"] for _ in range(3)]
    assert lefts == ["2", "1", "0"]
    answer = refused(mine.get("/v1/jobs"), 429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert answer.headers["ratelimit-policy"] == '"requests";q=3;w=60'
    assert answer.headers["ratelimit"].startswith('"requests";r=0;t=')
    assert gateway.make().get("/v1/jobs").status_code == 200, "another key's bucket is another"
    # A third of a minute later there is room for one more.
    raw: Any = gateway.lifecycle.client
    bucket = gateway.lifecycle.keys("bucket", rate=f"requests:key:{key.split('_')[1]}")
    raw.set(bucket, float(raw.get(bucket)) - 20, px=60_000)
    assert mine.get("/v1/jobs").status_code == 200
    refused(mine.get("/v1/jobs"), 429, "rate_limited")


def test_who_lacks_the_secret_spends_nothing(gateway: Served) -> None:
    key = gateway.access.create("k", tenant="acme", limits=Limits(requests=2))
    wrong = gateway.as_key(key[:-6] + "000000")
    for _ in range(5):
        refused(wrong.get("/v1/jobs"), 401, "unauthorized")
    assert gateway.as_key(key).get("/v1/jobs").headers["x-ratelimit-remaining-requests"] == "1"


@pytest.mark.parametrize("installation", [{"tenant_requests_per_minute": 4}], indirect=True)
def test_the_keys_of_a_tenant_share_its_limit(gateway: Served) -> None:
    one, two = gateway.make(), gateway.make()
    for _ in range(2):
        assert one.get("/v1/jobs").status_code == 200
        assert two.get("/v1/jobs").status_code == 200
    assert "tenant-requests" in refused(one.get("/v1/jobs"), 429, "rate_limited").headers["ratelimit"]
    refused(two.get("/v1/jobs"), 429, "rate_limited")
    assert gateway.make(tenant="rival").get("/v1/jobs").status_code == 200


def test_tokens_a_minute_bound_what_models_are_asked_for(gateway: Served) -> None:
    mine = gateway.make(limits=Limits(tokens=250))
    first = mine.post("/v1/jobs", json=GENERATE)
    assert first.status_code == 202, first.text
    left = int(first.headers["x-ratelimit-remaining-tokens"])
    assert 100 < left < 160, "99 of the answer, and the prompt"
    assert mine.post("/v1/jobs", json=GENERATE).status_code == 202
    refused(mine.post("/v1/jobs", json=GENERATE), 429, "rate_limited")
    assert len(mine.get("/v1/jobs").json()["data"]) == 2
    greedy = gateway.make(limits=Limits(tokens=50))
    assert greedy.post("/v1/jobs", json=GENERATE).status_code == 202, "more than a bucket needs a full one"
    refused(greedy.post("/v1/jobs", json=GENERATE), 429, "rate_limited")


def test_a_repeat_costs_no_tokens(gateway: Served) -> None:
    mine = gateway.make(limits=Limits(tokens=1000))
    once = {"Idempotency-Key": "once"}
    first = mine.post("/v1/jobs", json=GENERATE, headers=once)
    again = [mine.post("/v1/jobs", json=GENERATE, headers=once) for _ in range(3)]
    assert {answer.json()["id"] for answer in again} == {first.json()["id"]}
    left = int(first.headers["x-ratelimit-remaining-tokens"])
    other = mine.post("/v1/jobs", json=GENERATE)
    assert int(other.headers["x-ratelimit-remaining-tokens"]) >= 2 * left - 1000


def test_a_retry_that_is_refused_costs_no_tokens(gateway: Served) -> None:
    mine = gateway.make(limits=Limits(tokens=150))
    job = gateway.make().post("/v1/jobs", json=GENERATE).json()["id"]
    gateway.lifecycle.cancel("acme", job)
    raw: Any = gateway.lifecycle.client
    raw.hset(gateway.lifecycle.keys("job", tenant="acme", id=job), "erased", "1")  # as an erasure leaves it
    refused(mine.post(f"/v1/jobs/{job}/retry"), 404, "job_unknown")
    assert mine.post("/v1/jobs", json=GENERATE).status_code == 202


def test_a_retry_asks_for_what_a_submission_does(gateway: Served) -> None:
    every = gateway.make()
    urgent = every.post("/v1/jobs", json=GENERATE | {"priority": "high"}).json()["id"]
    every.delete(f"/v1/jobs/{urgent}")
    modest = gateway.make(ceiling=Priority.LOW)
    refused(modest.post(f"/v1/jobs/{urgent}/retry"), 403, "priority_forbidden")
    mine = gateway.make(limits=Limits(tokens=250))
    large = GENERATE | {"input": {"prompt": "word " * 5000, "max_tokens": 1}}
    jobs = [every.post("/v1/jobs", json=body).json()["id"] for body in (GENERATE, GENERATE, GENERATE, large)]
    for job in jobs:
        every.delete(f"/v1/jobs/{job}")
    for job in jobs[:2]:
        assert mine.post(f"/v1/jobs/{job}/retry").status_code == 202
    for job in jobs[2:]:
        refused(mine.post(f"/v1/jobs/{job}/retry"), 429, "rate_limited")
        assert every.get(f"/v1/jobs/{job}").json()["state"] == "cancelled"
    rich = gateway.make(limits=Limits(tokens=9000))
    refused(rich.post(f"/v1/jobs/{jobs[0]}/retry"), 409, "job_state")
    answer = rich.post(f"/v1/jobs/{jobs[3]}/retry")
    assert answer.status_code == 202
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 3000, "its prompt of 25,000 bytes counts"


def test_stored_bytes_are_bounded_before_anything_is_written(gateway: Served) -> None:
    mine = gateway.make(limits=Limits(stored_bytes=100))

    def upload(data: bytes, **query: str) -> httpx.Response:
        return mine.post("/v1/documents", params={"read": "false"} | query, content=data)

    def blobs() -> int:
        return len([path for path in gateway.data_dir.rglob("doc_*") if path.is_file()])

    first = upload(b"a" * 60)
    assert first.status_code == 201
    assert upload(b"a" * 60).status_code == 413, "what is there counts as a new one would, for nobody is told apart"
    refused(upload(b"b" * 41), 413, "storage_full")
    assert blobs() == 1
    assert upload(b"c" * 40).status_code == 201
    assert gateway.make().post("/v1/documents", params={"read": "false"}, content=b"d" * 500).status_code == 201
    assert mine.delete(f"/v1/documents/{first.json()['id']}").status_code == 204
    assert upload(b"b" * 60).status_code == 201
    with ThreadPoolExecutor(8) as pool:
        crowd = gateway.make(limits=Limits(stored_bytes=100))
        sent = pool.map(
            lambda number: crowd.post("/v1/documents", params={"read": "false"}, content=b"%d" % number * 30), range(8)
        )
        assert [answer.status_code for answer in sent].count(201) == 3
    stored: Any = gateway.lifecycle.client.hgetall(gateway.lifecycle.keys("stored", tenant="acme"))
    assert int(stored["all"]) == sum(int(value) for name, value in stored.items() if name != "all")
    assert gateway.lifecycle.client.zcard(gateway.lifecycle.keys("storing", tenant="acme")) == 0


def test_a_rotated_key_has_two_secrets_for_a_while(gateway: Served) -> None:
    admin = gateway.make()
    old = gateway.access.create("k", tenant="acme", scopes=("read",))
    key_id = old.split("_")[1]
    made = admin.post(f"/v1/keys/{key_id}/rotate", json={"grace_seconds": 3600})
    assert made.headers["cache-control"] == "no-store"
    new = made.json()["key"]
    assert new != old
    assert gateway.as_key(old).get("/v1/jobs").status_code == 200
    assert gateway.as_key(new).get("/v1/jobs").status_code == 200
    assert made.json()["old_secret_until"] > made.json()["rotated_at"]
    raw: Any = gateway.lifecycle.client
    raw.hset(gateway.lifecycle.keys("apikey", id=key_id), "old_until", "1")
    refused(gateway.as_key(old).get("/v1/jobs"), 401, "unauthorized")
    assert gateway.as_key(new).get("/v1/jobs").status_code == 200


def test_a_key_expires_and_tells_when_it_was_used(gateway: Served) -> None:
    admin = gateway.make()
    body = {"name": "k", "scopes": ["read"], "expires_at": "2999-01-01T00:00:00Z"}
    made = admin.post("/v1/keys", json=body).json()
    assert made["last_used_at"] is None
    mine = gateway.as_key(made["key"])
    assert mine.get("/v1/jobs").status_code == 200
    used = admin.get(f"/v1/keys/{made['id']}").json()["last_used_at"]
    assert used
    assert mine.get("/v1/jobs").status_code == 200
    assert admin.get(f"/v1/keys/{made['id']}").json()["last_used_at"] == used, "one write a minute at most"
    raw: Any = gateway.lifecycle.client
    raw.hset(gateway.lifecycle.keys("apikey", id=made["id"]), "expires", "1")
    refused(mine.get("/v1/jobs"), 401, "key_expired")
    refused(admin.post("/v1/keys", json=body | {"expires_at": "2001-01-01T00:00:00Z"}), 422, "time_invalid")


def test_a_session_follows_its_key(gateway: Served) -> None:
    key = gateway.access.create("k", tenant="acme")
    key_id = key.split("_")[1]
    session = gateway.access.open_session(gateway.access.start_login(key_id))
    assert gateway.access.check(session, session=True).key_id == key_id
    holder = gateway.access.check(session, session=True)
    assert gateway.access.holds(holder)
    gateway.access.rotate(key_id, grace_seconds=0)
    assert gateway.access.check(session, session=True).tenant == "acme"
    gateway.access.revoke(key_id)
    assert not gateway.access.holds(holder)
    with pytest.raises(Unauthorized):
        gateway.access.check(session, session=True)
    gateway.lifecycle.client.delete(gateway.lifecycle.keys("session", token=session))


def test_an_open_stream_of_a_session_ends_with_it(gateway: Served) -> None:
    session = gateway.access.open_session(gateway.access.start_login(gateway.access.create("k").split("_")[1]))
    holder = gateway.access.check(session, session=True)
    gateway.lifecycle.client.delete(gateway.lifecycle.keys("session", token=session))
    assert not gateway.access.holds(holder)


@pytest.mark.parametrize("end", ["revoked", "expired", "rotated"])
def test_an_open_stream_ends_with_its_key(gateway: Served, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(while_allowed, "CHECK_SECONDS", 0.2)
    key = gateway.access.create("k", tenant="acme")
    job = gateway.make().post("/v1/jobs", json=GENERATE).json()["id"]
    lines: list[str] = []

    def read() -> None:
        with gateway.as_key(key).stream("GET", f"/v1/jobs/{job}/events") as answer:
            lines.extend(answer.iter_lines())

    reader = threading.Thread(target=read)
    reader.start()
    raw: Any = gateway.lifecycle.client
    record = gateway.lifecycle.keys("apikey", id=key.split("_")[1])
    wait_until(lambda: raw.hget(record, "used"))
    if end == "revoked":
        gateway.access.revoke(key.split("_")[1])
    elif end == "rotated":
        gateway.access.rotate(key.split("_")[1], grace_seconds=0)
    else:
        raw.hset(record, "expires", "1")
    reader.join(20)
    assert not reader.is_alive()
    assert "event: queued" in lines
    assert lines[-3] == "event: interrupted"
    assert json.loads(lines[-2].removeprefix("data: "))["code"] == "key_ended"


def test_the_log_tells_what_was_done_and_no_name_of_a_file(gateway: Served) -> None:
    mine = gateway.make()
    query = {"read": "false", "name": "settlement-offer.txt", "matter": "M-1"}
    document = mine.post("/v1/documents", params=query, content=b"privileged text").json()["id"]
    job = mine.post("/v1/jobs", json=GENERATE).json()["id"]
    mine.delete(f"/v1/jobs/{job}")
    mine.post(f"/v1/jobs/{job}/retry")
    run = mine.post("/v1/runs", json={"matter": "M-1", "model": "none", "name": "secret run"}).json()["id"]
    mine.delete(f"/v1/runs/{run}")
    mine.delete(f"/v1/documents/{document}")
    mine.patch("/v1/workers/cpu", json={"min": 1})
    expected = ["key.made", "document.uploaded", "job.cancelled", "job.retried"]
    expected += ["run.created", "run.cancelled", "erasure.begun"]
    assert gateway.actions()[: len(expected)] == expected, "its end follows when the server has rewritten its file"
    assert gateway.actions(SYSTEM)[-1] == "scale.changed"
    page = mine.get("/v1/audit", params={"limit": 2}).json()
    rest = mine.get("/v1/audit", params={"cursor": page["next_cursor"]}).json()
    assert [entry["number"] for entry in (page["data"] + rest["data"])[:4]] == [1, 2, 3, 4]
    assert (len(page["data"]), rest["next_cursor"]) == (2, None)
    whole = json.dumps([page, rest])
    assert document in whole
    for secret in ("settlement", "privileged", "secret run"):
        assert secret not in whole
    assert gateway.audit.verify("acme").broken is None


def test_a_flood_of_refusals_is_a_line(gateway: Served) -> None:
    reader = gateway.make(scopes=("read",))
    for _ in range(20):
        refused(reader.post("/v1/jobs", json=GENERATE), 403, "forbidden")
        refused(gateway.as_key("cm_x_y").get("/v1/jobs/secret-typed-by-hand"), 401, "unauthorized")
    (own,) = [entry.fields for entry in gateway.audit.all("acme") if entry.fields["action"] == "access.refused"]
    assert own["details"] == {"code": "forbidden", "route": "POST /v1/jobs", "client": "127.0.0.1"}
    (system,) = [entry.fields for entry in gateway.audit.all(SYSTEM) if entry.fields["action"] == "access.refused"]
    assert (system["actor"], system["details"]["route"]) == ("-", "GET /v1/jobs/{job_id}")
