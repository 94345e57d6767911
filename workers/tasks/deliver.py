"""Task ``deliver``: sends one endpoint the message of one end, signed; what does not arrive is tried again for days."""

from __future__ import annotations

import json
import math
import random
import time
from datetime import UTC, datetime
from typing import Any

from services.errors import NotFound, Permanent, Transient
from services.jobs import Claim
from services.lifecycle import DELIVERY_RETRY_SECONDS
from services.settings import Settings
from services.signatures import signed_headers
from services.webhooks import Webhook, Webhooks
from workers.execution import Execution
from workers.webhook_post import post

MAX_BODY = 20_000
JITTER = 0.1
# A receiver may ask for a longer wait than the schedule's, up to this.
MOST_SECONDS = 86_400.0
REST_SECONDS = 30.0
_resting: dict[str, float] = {}  # webhook → until when, on this process's clock
_COUNTS = ("total", "succeeded", "failed", "cancelled", "expired", "request_counts")
_SNAPSHOT = ("type", "state", "status", "matter", "run", "code", *_COUNTS)
_PATHS = {"job": "/v1/jobs/", "run": "/v1/runs/", "batch": "/v1/batches/"}


def send_webhook(webhooks: Webhooks, settings: Settings, execution: Execution) -> dict[str, Any]:
    """Send the message; the output is the status that the receiver answered.

    An endpoint that answers 410 is disabled. Any other answer than 2xx, and none, is tried again on the schedule.
    """
    execution.check()
    claim = execution.claim
    _check_rest(claim)
    webhook = _endpoint(webhooks, execution)
    external_id, metadata = webhooks.known_as(claim.tenant, claim.input["subject"])
    body = message(claim.input, external_id, metadata, settings.public_url, event=claim.id)
    secrets, now = webhooks.secrets(claim.tenant, webhook.id)
    headers = signed_headers(claim.id, int(now), body, secrets)
    try:
        status, wished = post(webhook.url, body, headers, settings.webhook_allowed, execution.tick)
    except Transient as error:
        if error.code == "webhook_timeout":
            _resting[webhook.id] = time.monotonic() + REST_SECONDS
        raise Transient(error.detail, code=error.code, retry_after=wait_seconds(claim, None)) from None
    if 200 <= status < 300:
        return {"status": status}
    if status == 410:
        webhooks.disable(claim.tenant, webhook.id, "the receiver answered 410 Gone")
        raise Permanent("the receiver answered 410 Gone; the webhook is disabled now", code="webhook_gone")
    raise Transient(f"the receiver answered {status}", code="webhook_status", retry_after=wait_seconds(claim, wished))


def _check_rest(claim: Claim) -> None:
    """Leave an endpoint alone that has just let another message time out: its hanging must not fill all slots."""
    until = _resting.get(claim.input["webhook"], 0.0)
    if until > time.monotonic():
        raise Transient(
            "the receiver let another message time out a moment ago and was not asked",
            code="webhook_resting",
            retry_after=wait_seconds(claim, None),
        )
    _resting.pop(claim.input["webhook"], None)


def message(
    told: dict[str, Any],
    external_id: str | None,
    metadata: dict[str, str],
    public_url: str | None,
    *,
    event: str = "",
) -> bytes:
    """The body: what happened to which job, run or batch, by what names its client knows it, and where its result is.

    Metadata that would make it larger than receivers take is left out and ``omitted`` says so. Of a batch it is
    OpenAI's event with the id ``event``, which names nothing but the batch.
    """
    subject = str(told["subject"])
    data: dict[str, Any] = {"id": subject or None}
    data |= {name: told[name] for name in _SNAPSHOT if told.get(name) not in (None, "")}
    data |= {"external_id": external_id} if external_id else {}
    kind = told["event"].partition(".")[0]
    if subject:
        data["url"] = (public_url or "").rstrip("/") + _PATHS[kind] + subject
        data["created_at"] = _moment(told["created"])
    body = {"type": told["event"], "timestamp": _moment(told["at"]), "data": data}
    if kind == "batch":
        return _encoded({"id": event, "object": "event", "created_at": int(float(told["at"]))} | body)
    whole = _encoded(body | {"data": data | {"metadata": metadata}})
    return whole if len(whole) < MAX_BODY else _encoded(body | {"data": data | {"omitted": ["metadata"]}})


def _endpoint(webhooks: Webhooks, execution: Execution) -> Webhook:
    claim = execution.claim
    try:
        webhook = webhooks.get(claim.tenant, claim.input["webhook"])
    except NotFound:  # removed since
        execution.stop("cancel")
        execution.check()
        raise
    if webhook.disabled:
        raise Permanent(
            f"the webhook is disabled: {webhook.reason}; enable it, then replay this delivery", code="webhook_disabled"
        )
    return webhook


def wait_seconds(claim: Claim, wished: float | None) -> int:
    """Seconds until the next attempt: the schedule's with some jitter, or more where the receiver wishes."""
    usual = DELIVERY_RETRY_SECONDS[min(claim.tries, len(DELIVERY_RETRY_SECONDS)) - 1]
    jitter = 1 + random.uniform(0, JITTER)  # noqa: S311 (spreads load, keeps no secret)
    return math.ceil(max(usual * jitter, min(wished or 0.0, MOST_SECONDS)))


def _moment(seconds: str) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
