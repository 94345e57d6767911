"""The message of a webhook: small whatever its job was given, and waits that follow the schedule."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.app import create_app
from services.errors import NotFound, Permanent, Transient
from services.jobs import Claim, Lane, Priority
from services.lifecycle import DELIVERY_RETRY_SECONDS
from services.settings import Settings
from tests.described import Description
from workers.execution import Execution, Stopped
from workers.tasks import deliver as task
from workers.tasks.deliver import MAX_BODY, message, send_webhook, wait_seconds

TOLD: dict[str, Any] = {
    "event": "job.failed",
    "subject": "job_1",
    "state": "failed",
    "code": "document_unreadable",
    "type": "review",
    "matter": "",
    "created": "1700000000.500000",
    "at": "1700000001.000000",
}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Description:
    folder = tmp_path_factory.mktemp("described")
    return Description(create_app(Settings.model_validate({"data_dir": folder})).openapi())


def misfits(described: Description, sent: dict[str, Any]) -> list[str]:
    """What of a message the description of its event does not know."""
    body = described.document["webhooks"][sent["type"]]["post"]["requestBody"]
    return described.errors(body["content"]["application/json"]["schema"]["$ref"], sent)


def test_a_message_says_what_and_where() -> None:
    told = json.loads(message(TOLD, "2031/7", {"case": "Ü-1"}, "https://casemill.firm.example/"))
    assert told == {
        "type": "job.failed",
        "timestamp": "2023-11-14T22:13:21.000Z",
        "data": {
            "id": "job_1",
            "type": "review",
            "state": "failed",
            "code": "document_unreadable",
            "external_id": "2031/7",
            "url": "https://casemill.firm.example/v1/jobs/job_1",
            "created_at": "2023-11-14T22:13:20.500Z",
            "metadata": {"case": "Ü-1"},
        },
    }


def test_a_message_of_a_batch_is_openais_event_and_holds_counts_alone(described: Description) -> None:
    told = TOLD | {
        "event": "batch.completed",
        "subject": "batch_1",
        "status": "completed",
        "request_counts": {"total": 3, "completed": 2, "failed": 1},
    }
    for name in ("state", "type", "code"):
        del told[name]
    body = message(told, None, {"case": "C-1"}, None, event="dlv_9")
    assert json.loads(body) == {
        "id": "dlv_9",
        "object": "event",
        "created_at": 1700000001,
        "type": "batch.completed",
        "timestamp": "2023-11-14T22:13:21.000Z",
        "data": {
            "id": "batch_1",
            "status": "completed",
            "request_counts": {"total": 3, "completed": 2, "failed": 1},
            "url": "/v1/batches/batch_1",
            "created_at": "2023-11-14T22:13:20.500Z",
        },
    }
    assert misfits(described, json.loads(body)) == []


@pytest.mark.parametrize(
    "told",
    [
        TOLD,
        TOLD | {"matter": "M-1", "run": "run_1"},
        TOLD
        | {"event": "run.finished", "subject": "run_1", "total": 3, "succeeded": 1, "failed": 2}
        | {"cancelled": 0, "expired": 0},
    ],
)
def test_a_message_is_as_the_api_describes_it(described: Description, told: dict[str, Any]) -> None:
    known_as = "2031/7" if told["event"].startswith("job") else None
    for metadata in ({"case": "C-1"}, {f"field {n}": "🏛" * 512 for n in range(16)}):
        sent = json.loads(message(told, known_as, metadata, None))
        assert misfits(described, sent) == []


def test_a_message_that_tells_of_nothing_is_described(described: Description) -> None:
    told = {"event": "webhook.test", "subject": "", "at": TOLD["at"], "matter": ""}
    assert misfits(described, json.loads(message(told, None, {}, None))) == []


def test_metadata_that_is_too_large_is_left_out_and_that_is_said() -> None:
    body = message(TOLD, None, {f"field {n}": "🏛" * 512 for n in range(16)}, None)
    assert len(body) < MAX_BODY
    told = json.loads(body)["data"]
    assert told["omitted"] == ["metadata"]
    assert "metadata" not in told
    assert told["url"] == "/v1/jobs/job_1"


@pytest.mark.parametrize(("tries", "least"), list(enumerate(DELIVERY_RETRY_SECONDS, 1)))
def test_waits_follow_the_schedule_and_the_receivers_wish_within_a_day(tries: int, least: int) -> None:
    claim = Claim(
        "acme", "dlv_1", tries + 3, "deliver", Lane.DELIVER, Priority.NORMAL, {}, None, None, None, {}, None, 3
    )
    assert least <= wait_seconds(claim, None) <= 1.1 * least + 1
    assert wait_seconds(claim, 1.0) >= least
    assert wait_seconds(claim, 1e9) == pytest.approx(86_400, rel=0.1)


def test_a_receiver_that_has_just_hung_is_not_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def hang(url: str, *_: Any) -> Any:
        asked.append(url)
        raise Transient("it hangs", code="webhook_timeout")

    monkeypatch.setattr(task, "post", hang)
    monkeypatch.setattr(task, "_resting", {})
    webhooks: Any = SimpleNamespace(
        get=lambda _, webhook: SimpleNamespace(id=webhook, url=f"http://{webhook}", disabled=0.0),
        known_as=lambda *_: (None, {}),
        secrets=lambda *_: (["whsec_AAAA"], 1.0),
    )
    settings: Any = SimpleNamespace(public_url=None, webhook_allowed=())

    def attempt(webhook: str) -> str:
        told = TOLD | {"webhook": webhook}
        claim = Claim("acme", "dlv_1", 1, "deliver", Lane.DELIVER, Priority.NORMAL, told, None, None, None, {}, None)
        execution: Any = SimpleNamespace(claim=claim, check=lambda: None, tick=lambda: None)
        with pytest.raises(Transient) as failed:
            send_webhook(webhooks, settings, execution)
        assert failed.value.retry_after
        return failed.value.code

    assert [attempt(name) for name in ("wh_1", "wh_1", "wh_2")] == [
        "webhook_timeout",
        "webhook_resting",
        "webhook_timeout",
    ]
    assert asked == ["http://wh_1", "http://wh_2"]
    monkeypatch.setattr(task, "REST_SECONDS", 0.0)
    task._resting["wh_1"] = 0.0
    assert attempt("wh_1") == "webhook_timeout"


def test_an_endpoint_that_was_removed_or_disabled_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise NotFound("gone")

    def attempt(get: Any) -> None:
        told = TOLD | {"webhook": "wh_9"}
        claim = Claim("acme", "dlv_1", 1, "deliver", Lane.DELIVER, Priority.NORMAL, told, None, None, None, {}, None)
        none: Any = None
        send_webhook(cast(Any, SimpleNamespace(get=get)), none, Execution(claim, none, lambda: False))

    monkeypatch.setattr(task, "post", missing)
    with pytest.raises(Stopped):
        attempt(missing)
    with pytest.raises(Permanent, match="it was late") as refused:
        attempt(lambda *_: SimpleNamespace(id="wh_9", disabled=1.0, reason="it was late"))
    assert refused.value.code == "webhook_disabled"
