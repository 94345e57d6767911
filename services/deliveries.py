"""The log of what was sent to endpoints: read, sent again, and a first message to try one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.errors import Conflict, unknown
from services.jobs import State, new_id
from services.lifecycle import Lifecycle
from services.paging import Page, Place, page_of_newest
from services.redis_client import redis_errors
from services.sealed_records import SealedRecords
from services.webhooks import Webhooks

TEST_EVENT = "webhook.test"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to send; ``outcome`` is succeeded, retry, failed, cancelled, released or worker_lost."""

    at: float
    seconds: float | None
    outcome: str
    status: int | None
    problem: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one endpoint; ``id`` is its ``webhook-id``. Times are seconds since the epoch, 0.0 if not reached.

    ``subject`` is the job, run or batch that it tells of, empty for a test; ``due`` is when it is tried again.
    """

    id: str
    webhook: str
    event: str
    subject: str
    state: State
    created: float
    finished: float
    due: float
    tries: int
    attempts: tuple[Attempt, ...]


class Deliveries:
    """Reads and repeats deliveries. Safe for threads; every method raises ``Unavailable`` when Redis is away."""

    def __init__(self, lifecycle: Lifecycle, webhooks: Webhooks) -> None:
        self._client = lifecycle.client
        self._keys = lifecycle.keys
        self._scripts = lifecycle.scripts
        self._webhooks = webhooks
        self._records = lifecycle.records

    def page(
        self, tenant: str, webhook: str, *, states: Sequence[State] = (), cursor: str | None = None, limit: int = 50
    ) -> Page[Delivery]:
        """The deliveries to an endpoint, newest first. Raises ``NotFound``, or code ``cursor_invalid``."""
        self._webhooks.get(tenant, webhook)
        names = [self._keys("deliveries", tenant=tenant, webhook=webhook)]

        def rows(places: Sequence[Place]) -> Iterator[tuple[Place, Delivery]]:
            read = self._read(tenant, [place.name for place in places])
            pairs = zip(places, read, strict=True)
            return ((place, row) for place, row in pairs if row and (not states or row.state in states))

        return page_of_newest(self._client, "deliveries", names, rows, cursor=cursor, limit=limit)

    def get(self, tenant: str, webhook: str, delivery: str) -> Delivery:
        """One delivery to an endpoint; raises ``NotFound``."""
        (found,) = self._read(tenant, [delivery])
        if not found or found.webhook != webhook:
            raise unknown("delivery", delivery)
        return found

    def replay(self, tenant: str, webhook: str, delivery: str) -> Delivery:
        """Send again one that has ended, under its own id; raises ``NotFound``, or ``Conflict`` while it goes on."""
        argument = {"tenant": tenant, "webhook": webhook, "id": delivery}
        verdict = str(self._scripts.run("delivery_replay", argument))
        if verdict == "missing":
            raise unknown("delivery", delivery)
        if verdict != "replayed":
            raise Conflict(f"the delivery is {verdict}; only one that has ended is sent again", code="delivery_state")
        return self.get(tenant, webhook, delivery)

    def test(self, tenant: str, webhook: str, request_id: str) -> Delivery:
        """Send a message that tells of nothing; raises ``NotFound``, or ``Conflict`` where the endpoint is disabled."""
        argument = {"tenant": tenant, "webhook": webhook, "event": TEST_EVENT, "nonce": new_id("test")}
        verdict, *value = self._scripts.run("delivery_test", argument | {"request_id": request_id})
        if verdict == "missing":
            raise unknown("webhook", webhook)
        if verdict == "disabled":
            raise Conflict("the webhook is disabled; enable it first", code="webhook_disabled")
        return self.get(tenant, webhook, value[0])

    def _read(self, tenant: str, ids: Sequence[str]) -> list[Delivery | None]:
        with redis_errors():
            pipeline = self._client.pipeline(transaction=False)
            for delivery in ids:
                pipeline.hgetall(self._keys("job", tenant=tenant, id=delivery))
                pipeline.zscore(self._keys("deliveries_scheduled"), f"{tenant}|{delivery}")
            answers = pipeline.execute()
        return [_delivery(self._records, fields, due) for fields, due in zip(answers[::2], answers[1::2], strict=True)]


def _delivery(records: SealedRecords, fields: Mapping[str, str], due: float | None) -> Delivery | None:
    """The record as a delivery; ``None`` where there is none, or where it is a job."""
    if fields.get("task") != "deliver":
        return None
    message: dict[str, Any] = json.loads(fields["input"])
    return Delivery(
        id=fields["id"],
        webhook=message["webhook"],
        event=message["event"],
        subject=message["subject"],
        state=State(fields["state"]),
        created=float(fields["created"]),
        finished=float(fields.get("finished", "0")),
        due=due or 0.0,
        tries=int(fields["attempt"]),
        attempts=tuple(_attempt(records, fields["tenant"], item) for item in json.loads(fields.get("attempts", "[]"))),
    )


def _attempt(records: SealedRecords, tenant: str, fields: Mapping[str, Any]) -> Attempt:
    problem: dict[str, Any] | None = fields.get("problem")
    return Attempt(
        at=float(fields["at"]),
        seconds=round(fields["seconds"], 3) if "seconds" in fields else None,
        outcome=fields["outcome"],
        status=int(fields["status"]) if "status" in fields else None,
        problem=records.open_problem(tenant, problem) if problem else None,
    )
