"""Endpoints that are told of the ends of jobs, runs and batches, as an administrator registered them, with secrets.

Which of them hears of an end is decided in the very script that makes it (``services/lua/deliveries.lua``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.errors import Conflict, InvalidRequest, NotFound, unknown
from services.jobs import new_id
from services.lifecycle import Lifecycle
from services.redis_client import redis_errors, server_time
from services.runs import Runs
from services.scripts import pairs
from services.signatures import new_secret

EVENTS: Final = (
    *("job.succeeded", "job.failed", "job.cancelled", "job.expired", "run.finished"),
    *("batch.completed", "batch.failed", "batch.expired", "batch.cancelled"),  # as OpenAI names them
)
MAX_WEBHOOKS = 50
GRACE_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Webhook:
    """A registered endpoint; times are seconds since the epoch, 0.0 for never.

    ``events`` it is told of beside those of jobs that name it as their callback, only those of ``matter`` if it has
    one. ``disabled`` is since when nothing is sent, ``reason`` why. Until ``old_secret_until`` two secrets sign.
    """

    tenant: str
    id: str
    url: str
    events: tuple[str, ...]
    matter: str | None
    created: float
    disabled: float
    reason: str
    old_secret_until: float


class Webhooks:
    """Registers and reads endpoints. Safe for threads; every method raises ``Unavailable`` when Redis is away."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._jobs = lifecycle
        self._runs = Runs(lifecycle)
        self._client = lifecycle.client
        self._keys = lifecycle.keys
        self._scripts = lifecycle.scripts

    def add(self, tenant: str, url: str, events: Sequence[str], matter: str | None) -> tuple[Webhook, str]:
        """Register an endpoint whose URL was checked; answers it with its secret, which nobody is shown again."""
        webhook, secret = new_id("wh"), new_secret()
        fields = {"url": url, "events": " ".join(events), "matter": matter or ""}
        fields["secret"] = self._sealed(tenant, secret)
        argument = {"tenant": tenant, "id": webhook, "fields": fields, "most": MAX_WEBHOOKS}
        verdict, *value = self._scripts.run("webhook_add", argument)
        if verdict == "full":
            raise Conflict(f"there are {MAX_WEBHOOKS} endpoints already; remove one", code="webhooks_full")
        if verdict == "exists":
            raise Conflict(f"the URL is registered as {value[0]}; remove that one first", code="webhook_exists")
        return self.get(tenant, webhook), secret

    def get(self, tenant: str, webhook: str) -> Webhook:
        """One endpoint; raises ``NotFound``."""
        return _webhook(tenant, webhook, self._fields(tenant, webhook))

    def list(self, tenant: str) -> list[Webhook]:
        """The endpoints of a tenant, oldest first."""
        with redis_errors():
            names = sorted(self._client.smembers(self._keys("webhooks", tenant=tenant)))
            pipeline = self._client.pipeline(transaction=False)
            for webhook in names:
                pipeline.hgetall(self._keys("webhook", tenant=tenant, id=webhook))
            rows = zip(names, pipeline.execute(), strict=True)
        return [_webhook(tenant, webhook, fields) for webhook, fields in rows if fields]

    def callback(self, tenant: str, reference: str, matter: str | None) -> str:
        """The id of the endpoint that a job of ``matter`` names by its id or its URL as registered.

        Raises ``InvalidRequest`` ``callback_unknown``, also where the endpoint is for another matter, or
        ``callback_disabled``.
        """
        for webhook in self.list(tenant):
            if reference in (webhook.id, webhook.url) and webhook.matter in (None, matter):
                if webhook.disabled:
                    raise InvalidRequest(
                        f"the callback {webhook.id} is disabled: {webhook.reason}; an administrator enables it again",
                        code="callback_disabled",
                    )
                return webhook.id
        raise InvalidRequest(
            "the callback is no endpoint that is registered for this matter; "
            "an administrator registers one with POST /v1/webhooks",
            code="callback_unknown",
        )

    def disable(self, tenant: str, webhook: str, reason: str) -> Webhook:
        """Send nothing more; what happens meanwhile is kept as failed deliveries. A reason from before stays."""
        return self._change(tenant, webhook, "disable", reason=reason)

    def enable(self, tenant: str, webhook: str) -> Webhook:
        """Send again from now on; deliveries that failed meanwhile are replayed one by one."""
        return self._change(tenant, webhook, "enable")

    def rotate(self, tenant: str, webhook: str, grace: float) -> tuple[Webhook, str]:
        """Give an endpoint a new secret; the one before signs beside it for ``grace`` seconds, older ones no more."""
        secret = new_secret()
        return self._change(tenant, webhook, "rotate", secret=self._sealed(tenant, secret), grace=grace), secret

    def remove(self, tenant: str, webhook: str) -> None:
        """Forget an endpoint with its log; what still waits to be sent to it is not sent. Raises ``NotFound``."""
        self._change(tenant, webhook, "remove")

    def secrets(self, tenant: str, webhook: str) -> tuple[list[str], float]:
        """The secrets that sign now, the newest first, and what time it is: the one place where they are read."""
        fields, now = self._fields(tenant, webhook), server_time(self._client)
        found = [fields["secret"]]
        if float(fields.get("old_until", "0")) > now:
            found.append(fields["old_secret"])
        return [self._jobs.records.seals.open_text(tenant, "secret", stored) for stored in found], now

    def _sealed(self, tenant: str, secret: str) -> str:
        return self._jobs.records.seals.seal_text(tenant, "secret", secret)

    def known_as(self, tenant: str, subject: str) -> tuple[str | None, dict[str, str]]:
        """What its client calls a job, and noted with a job or run; nothing where its record is gone."""
        try:
            if subject.startswith("run_"):
                return None, self._runs.get(tenant, subject).metadata
            job = self._jobs.get(tenant, subject)
        except NotFound:
            return None, {}
        return job.external_id, job.metadata

    def _fields(self, tenant: str, webhook: str) -> dict[str, str]:
        with redis_errors():
            fields = self._client.hgetall(self._keys("webhook", tenant=tenant, id=webhook))
        if not fields:
            raise unknown("webhook", webhook)
        return fields

    def _change(self, tenant: str, webhook: str, action: str, **values: Any) -> Webhook:
        argument = {"tenant": tenant, "id": webhook, "action": action} | values
        verdict, *value = self._scripts.run("webhook_change", argument)
        if verdict == "missing":
            raise unknown("webhook", webhook)
        return _webhook(tenant, webhook, pairs(value[0]))


def _webhook(tenant: str, webhook: str, fields: dict[str, str]) -> Webhook:
    return Webhook(
        tenant=tenant,
        id=webhook,
        url=fields["url"],
        events=tuple(fields["events"].split()),
        matter=fields["matter"] or None,
        created=float(fields["created"]),
        disabled=float(fields.get("disabled") or 0),
        reason=fields.get("reason", ""),
        old_secret_until=float(fields.get("old_until", "0")),
    )
