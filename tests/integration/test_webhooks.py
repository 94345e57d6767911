"""Webhooks of a running stack: signed, retried, replayed, rotated and kept apart, at a receiver of real HTTP."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from standardwebhooks import WebhookVerificationError

from gateway.stack.valkey import reachable_settings
from services.access import Access
from services.keys import Keys
from services.redis_client import connect
from tests.conftest import wait_until
from tests.integration.conftest import Running
from tests.integration.test_cli import Shell
from tests.integration.test_gateway import problem
from tests.receiver import Received, Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def tidy(fake_stack: Running) -> Iterator[None]:
    """Other tests of the session's stack shall tell nobody."""
    yield
    for webhook in fake_stack.http.get("/v1/webhooks").json()["data"]:
        assert fake_stack.http.delete(f"/v1/webhooks/{webhook['id']}").status_code == 204


pytestmark = pytest.mark.usefixtures("tidy")


def register(stack: Running, url: str, **body: Any) -> tuple[str, str]:
    answer = stack.http.post("/v1/webhooks", json={"url": url, **body})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()["id"], answer.json()["secret"]


def generate(stack: Running, **body: Any) -> str:
    return stack.submit(type="generate", input={"prompt": "a secret of the client", "max_tokens": 4}, **body)["id"]


def arrived(receiver: Receiver, subject: str | None, count: int = 1) -> list[Received]:
    return wait_until(lambda: (found := receiver.of(subject)) and len(found) >= count and found, 30, "the message")


def log(stack: Running, webhook: str, **parameters: Any) -> list[dict[str, Any]]:
    return stack.http.get(f"/v1/webhooks/{webhook}/deliveries", params=parameters).json()["data"]


def ended(stack: Running, webhook: str, state: str) -> dict[str, Any]:
    return wait_until(lambda: next(iter(log(stack, webhook, state=state)), None), 30, f"a delivery that is {state}")


def make_due(stack: Running) -> None:
    """Let the next attempt's time come now."""
    client: Any = connect(reachable_settings(stack.settings))
    name = Keys(stack.settings.prefix)("deliveries_scheduled")
    for member in client.zrange(name, 0, -1):
        client.zadd(name, {member: 0}, xx=True)
    client.close()


def test_an_end_is_told_signed_and_without_text(fake_stack: Running, receiver: Receiver) -> None:
    webhook, secret = register(fake_stack, receiver.url)
    assert secret.startswith("whsec_")
    job = generate(fake_stack, matter="m-7", metadata={"case": "C-1"})
    (message,) = arrived(receiver, job)
    told = message.verified(secret)
    assert told["type"] == "job.succeeded"
    assert told["data"].pop("created_at") <= told["timestamp"]
    assert told["data"] == {
        "id": job,
        "type": "generate",
        "state": "succeeded",
        "matter": "m-7",
        "url": f"/v1/jobs/{job}",
        "metadata": {"case": "C-1"},
    }
    assert b"secret of the client" not in message.body
    assert len(message.body) < 1000
    with pytest.raises(WebhookVerificationError):
        message.verified("whsec_" + "A" * 32)
    delivery = ended(fake_stack, webhook, "succeeded")
    assert (delivery["id"], delivery["subject"], delivery["tries"]) == (message.headers["webhook-id"], job, 1)
    assert [attempt["status"] for attempt in delivery["attempts"]] == [204]
    assert secret not in fake_stack.http.get("/v1/webhooks").text + fake_stack.http.get(f"/v1/webhooks/{webhook}").text


def test_deliveries_are_no_jobs(fake_stack: Running, receiver: Receiver) -> None:
    webhook, _ = register(fake_stack, receiver.url)
    job = generate(fake_stack)
    arrived(receiver, job)
    delivery = ended(fake_stack, webhook, "succeeded")["id"]
    listed = fake_stack.http.get("/v1/jobs", params={"limit": 200}).json()["data"]
    assert delivery not in {view["id"] for view in listed}
    for answer in (
        fake_stack.http.get(f"/v1/jobs/{delivery}"),
        fake_stack.http.delete(f"/v1/jobs/{delivery}"),
        fake_stack.http.post(f"/v1/jobs/{delivery}/retry"),
        fake_stack.http.get(f"/v1/jobs/{delivery}/events"),
    ):
        problem(answer, 404, "job_unknown")
    dead = fake_stack.http.get("/v1/dead-letters", params={"limit": 200}).json()["data"]
    assert delivery not in {view["id"] for view in dead}


def test_who_subscribes_to_what(fake_stack: Running, receiver: Receiver) -> None:
    failed, _ = register(fake_stack, receiver.url + "?failed", events=["job.failed"])
    matter, _ = register(fake_stack, receiver.url + "?matter", matter="m-8")
    quiet, _ = register(fake_stack, receiver.url + "?quiet", events=[])
    other = generate(fake_stack)
    job = generate(fake_stack, matter="m-8", callback=receiver.url + "?quiet")
    assert fake_stack.job(job)["callback"] == quiet
    assert {message.path for message in arrived(receiver, job, 2)} == {"/hook?matter", "/hook?quiet"}
    fake_stack.finished(other)
    assert not receiver.of(other)
    empty = fake_stack.upload(b"nothing to see", "empty.txt").json()["id"]
    assert fake_stack.http.delete(f"/v1/documents/{empty}").status_code < 300
    assert {row["subject"] for row in log(fake_stack, matter)} == {job}
    assert log(fake_stack, failed) == []


def test_a_run_tells_its_callback_once(fake_stack: Running, receiver: Receiver) -> None:
    webhook, secret = register(fake_stack, receiver.url, events=[])
    documents = [fake_stack.upload(f"Text number {n}.".encode(), f"{n}.txt").json()["id"] for n in range(3)]
    body = {"type": "extract", "documents": documents, "callback": webhook, "metadata": {"room": "R-2"}}
    run = fake_stack.http.post("/v1/runs", json=body).json()
    assert run["callback"] == webhook
    told = arrived(receiver, run["id"])[0].verified(secret)
    assert told["type"] == "run.finished"
    assert {name: told["data"][name] for name in ("state", "total", "succeeded", "failed", "url", "metadata")} == {
        "state": "succeeded",
        "total": 3,
        "succeeded": 3,
        "failed": 0,
        "url": f"/v1/runs/{run['id']}",
        "metadata": {"room": "R-2"},
    }
    assert [row["subject"] for row in log(fake_stack, webhook)] == [run["id"]]


def test_what_fails_is_tried_again_under_the_same_id(fake_stack: Running, receiver: Receiver) -> None:
    webhook, secret = register(fake_stack, receiver.url)
    receiver.answer = lambda message, handler: (503, {"Retry-After": "1000"})
    job = generate(fake_stack)
    waiting = ended(fake_stack, webhook, "scheduled")
    assert waiting["attempts"][0]["problem"]["detail"] == "the receiver answered 503"
    assert waiting["next_attempt_at"] > waiting["created_at"]
    receiver.answer = lambda message, handler: 200
    make_due(fake_stack)
    first, second = arrived(receiver, job, 2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == waiting["id"]
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) >= int(first.headers["webhook-timestamp"])
    second.verified(secret)
    assert [attempt["outcome"] for attempt in ended(fake_stack, webhook, "succeeded")["attempts"]] == [
        "retry",
        "succeeded",
    ]


def test_a_worker_that_dies_in_mid_delivery_delivers_again_with_the_same_id(
    fake_stack: Running, receiver: Receiver
) -> None:
    webhook, secret = register(fake_stack, receiver.url)
    release = threading.Event()
    receiver.answer = lambda message, handler: release.wait(60) and None
    job = generate(fake_stack)
    (first,) = arrived(receiver, job)
    workers = fake_stack.http.get("/v1/workers").json()["data"]
    os.kill(next(worker["pid"] for worker in workers if worker["kind"] == "delivery"), signal.SIGKILL)
    release.set()
    receiver.answer = lambda message, handler: 204
    wait_until(lambda: fake_stack.stack.watch() or len(receiver.of(job)) > 1, 60, "the second delivery")
    second = receiver.of(job)[1]
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.verified(secret) == second.verified(secret)
    outcomes = [attempt["outcome"] for attempt in ended(fake_stack, webhook, "succeeded")["attempts"]]
    assert outcomes == ["worker_lost", "succeeded"]


def test_a_redirect_is_not_followed(fake_stack: Running, receiver: Receiver) -> None:
    webhook, _ = register(fake_stack, receiver.url)
    receiver.answer = lambda message, handler: (307, {"Location": receiver.url + "/elsewhere"})
    generate(fake_stack)
    waiting = ended(fake_stack, webhook, "scheduled")
    assert waiting["attempts"][0]["problem"]["detail"] == "the receiver answered 307"
    assert {message.path for message in receiver.received} == {"/hook"}


def test_gone_disables_until_somebody_enables_and_replays(fake_stack: Running, receiver: Receiver) -> None:
    webhook, secret = register(fake_stack, receiver.url)
    receiver.answer = lambda message, handler: 410
    job = generate(fake_stack)
    assert ended(fake_stack, webhook, "failed")["attempts"][-1]["problem"]["code"] == "webhook_gone"
    view = fake_stack.http.get(f"/v1/webhooks/{webhook}").json()
    assert view["disabled_at"]
    assert "410" in view["reason"]
    refused = fake_stack.http.post("/v1/jobs", json={"type": "generate", "input": {"prompt": "x"}, "callback": webhook})
    problem(refused, 422, "callback_disabled")
    problem(fake_stack.http.post(f"/v1/webhooks/{webhook}/test"), 409, "webhook_disabled")
    meanwhile = generate(fake_stack)
    wait_until(lambda: len(log(fake_stack, webhook, state="failed")) == 2, 30, "both deliveries")
    assert not receiver.of(meanwhile)
    receiver.answer = lambda message, handler: 204
    assert fake_stack.http.post(f"/v1/webhooks/{webhook}/enable").json()["disabled_at"] is None
    for row in log(fake_stack, webhook, state="failed"):
        answer = fake_stack.http.post(f"/v1/webhooks/{webhook}/deliveries/{row['id']}/replay")
        assert answer.status_code == 202, answer.text
    arrived(receiver, meanwhile)[0].verified(secret)
    again = arrived(receiver, job, 2)
    assert again[0].headers["webhook-id"] == again[1].headers["webhook-id"]
    metrics = fake_stack.http.get("/metrics").text
    assert 'casemill_webhook_deliveries_total{outcome="disabled"}' in metrics


def test_after_a_rotation_both_secrets_sign_for_a_while(fake_stack: Running, receiver: Receiver) -> None:
    webhook, old = register(fake_stack, receiver.url)
    new = fake_stack.http.post(f"/v1/webhooks/{webhook}/rotate", json={"grace_seconds": 600}).json()["secret"]
    job = generate(fake_stack)
    (message,) = arrived(receiver, job)
    assert message.verified(old) == message.verified(new)
    assert len(message.headers["webhook-signature"].split(" ")) == 2
    newest = fake_stack.http.post(f"/v1/webhooks/{webhook}/rotate", json={"grace_seconds": 0}).json()["secret"]
    job = generate(fake_stack)
    (message,) = arrived(receiver, job)
    message.verified(newest)
    for secret in (old, new):
        with pytest.raises(WebhookVerificationError):
            message.verified(secret)


def test_the_log_has_pages(fake_stack: Running, receiver: Receiver) -> None:
    webhook, _ = register(fake_stack, receiver.url, events=[])
    sent = [fake_stack.http.post(f"/v1/webhooks/{webhook}/test").json()["id"] for _ in range(5)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = fake_stack.http.get(f"/v1/webhooks/{webhook}/deliveries", params={"limit": 2, **after}).json()
        seen += [row["id"] for row in page["data"]]
        if page["next_cursor"] is None:
            break
        after = {"cursor": page["next_cursor"]}
    assert seen == sent[::-1]
    path = f"/v1/webhooks/{webhook}/deliveries"
    problem(fake_stack.http.get(path, params={"cursor": "dlv_0"}), 422, "cursor_invalid")
    problem(fake_stack.http.get(f"{path}/{generate(fake_stack)}"), 404, "delivery_unknown")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://169.254.169.254/latest/meta-data", "webhook_address_refused"),
        ("http://8.8.8.8/", "webhook_address_refused"),
        ("http://[::ffff:169.254.169.254]/", "webhook_address_refused"),
        ("http://no-such-host.invalid/", "webhook_unresolved"),
        ("ftp://localhost/", "webhook_url_invalid"),
        ("http://user:pw@localhost/", "webhook_url_invalid"),
        ("nonsense", "webhook_url_invalid"),
    ],
)
def test_endpoints_that_cannot_be(fake_stack: Running, url: str, code: str) -> None:
    problem(fake_stack.http.post("/v1/webhooks", json={"url": url}), 422, code)


def test_refusals(fake_stack: Running, receiver: Receiver) -> None:
    http = fake_stack.http
    webhook, _ = register(fake_stack, receiver.url, matter="m-9")
    problem(http.post("/v1/webhooks", json={"url": receiver.url}), 409, "webhook_exists")
    answer = http.post("/v1/webhooks", json={"url": receiver.url + "2", "events": ["job.begun"]})
    problem(answer, 422, "event_unknown")
    for callback, matter in (("wh_none", "m-9"), (webhook, "m-1"), (webhook, None)):
        job = {"type": "generate", "input": {"prompt": "x"}, "callback": callback, "matter": matter}
        problem(http.post("/v1/jobs", json=job), 422, "callback_unknown")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/test"), ("GET", "/deliveries")):
        problem(http.request(method, f"/v1/webhooks/wh_none{path}"), 404, "webhook_unknown")


def test_a_key_for_one_matter_may_name_its_webhook_and_the_log_says_who_registered_it(
    fake_stack: Running, receiver: Receiver
) -> None:
    ours, secret = register(fake_stack, receiver.url, matter="m-9", events=[])
    theirs, _ = register(fake_stack, receiver.url + "?2", matter="m-10", events=[])
    access = Access(connect(reachable_settings(fake_stack.settings)), Keys(fake_stack.settings.prefix))
    headers = {"Authorization": f"Bearer {access.create('m-9', scopes=('submit', 'read'), matters=['m-9'])}"}
    body = {"type": "generate", "input": {"prompt": "x", "max_tokens": 2}}
    with httpx.Client(base_url=fake_stack.url, headers=headers, trust_env=False) as http:
        problem(http.post("/v1/jobs", json=body | {"callback": theirs}), 422, "callback_unknown")
        job = http.post("/v1/jobs", json=body | {"callback": ours}).json()
    assert job["matter"] == "m-9"
    arrived(receiver, job["id"])[0].verified(secret)
    log, cursor = "", ""
    while cursor is not None:
        page = fake_stack.http.get("/v1/audit", params={"cursor": cursor} if cursor else {})
        log, cursor = log + page.text, page.json()["next_cursor"]
    assert '"webhook.created"' in log
    assert ours in log
    assert secret not in log
    assert receiver.url not in log


def test_tenants_neither_see_nor_hear_each_other(fake_stack: Running, receiver: Receiver) -> None:
    webhook, _ = register(fake_stack, receiver.url)
    access = Access(connect(reachable_settings(fake_stack.settings)), Keys(fake_stack.settings.prefix))
    scopes = ("submit", "read", "admin")
    headers = {"Authorization": f"Bearer {access.create('other', tenant='webhooks-2', scopes=scopes)}"}
    with receiving() as elsewhere, httpx.Client(base_url=fake_stack.url, headers=headers, trust_env=False) as other:
        assert other.get("/v1/webhooks").json() == {"data": []}
        delivery = fake_stack.http.post(f"/v1/webhooks/{webhook}/test").json()["id"]
        own = other.post("/v1/webhooks", json={"url": elsewhere.url}).json()["id"]
        for path in (webhook, f"{webhook}/deliveries", f"{webhook}/deliveries/{delivery}"):
            assert other.get(f"/v1/webhooks/{path}").status_code == 404
        for path in (f"{webhook}/rotate", f"{webhook}/test", f"{own}/deliveries/{delivery}/replay"):
            assert other.post(f"/v1/webhooks/{path}").status_code == 404
        assert other.delete(f"/v1/webhooks/{webhook}").status_code == 404
        body = {"type": "generate", "input": {"prompt": "x", "max_tokens": 2}}
        problem(other.post("/v1/jobs", json=body | {"callback": webhook}), 422, "callback_unknown")
        theirs = other.post("/v1/jobs", json=body).json()["id"]
        ours = generate(fake_stack)
        arrived(elsewhere, theirs)
        arrived(receiver, ours)
        assert not elsewhere.of(ours)
        assert not receiver.of(theirs)
        assert other.delete(f"/v1/webhooks/{own}").status_code == 204
    key = access.create("reader", scopes=("submit", "read"))
    answer = httpx.get(f"{fake_stack.url}/v1/webhooks", headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    problem(answer, 403, "forbidden")


@pytest.mark.slow
def test_the_verbs(fake_stack: Running, receiver: Receiver) -> None:
    shell = Shell(CASEMILL_DATA_DIR=str(fake_stack.settings.data_dir))
    made = shell.json("webhooks", "add", receiver.url, "--callbacks-only")
    webhook = made["id"]
    assert "succeeded" in shell("webhooks", "test", webhook)
    receiver.received[0].verified(made["secret"])
    job = shell("submit", "generate", "--input", '{"prompt": "x", "max_tokens": 2}', "--callback", webhook).strip()
    arrived(receiver, job)
    receiver.answer = lambda message, handler: 500
    assert "the receiver answered 500" in shell("webhooks", "test", webhook, status=1)
    assert shell.json("webhooks", "rotate", webhook, "--grace", "0.5")["secret"].startswith("whsec_")
    rows = [json.loads(line) for line in shell("webhooks", "deliveries", webhook, "--json").splitlines()]
    assert sorted(row["event"] for row in rows) == ["job.succeeded", "webhook.test", "webhook.test"]
    assert shell("webhooks", "replay", webhook, rows[-1]["id"]).split("\t")[0] == rows[-1]["id"]
    shell("webhooks", "disable", webhook)
    assert shell("webhooks", "list").rstrip("\n").split("\t")[::4] == [webhook, "an administrator disabled it"]
