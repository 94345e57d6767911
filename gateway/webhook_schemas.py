"""The wire types of webhooks and of the log of their deliveries."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from gateway.schemas import JobProblem, MatterName, NextCursor, StateName, moment, named
from services.deliveries import Delivery
from services.json_model import JsonModel
from services.webhooks import EVENTS, GRACE_SECONDS, Webhook

EventName = Annotated[str, named(EVENTS)]


class WebhookRequest(JsonModel):
    """An endpoint that is to be told of ends of jobs, runs and batches."""

    url: str = Field(description="where messages go, within the networks that the installation allows")
    events: list[EventName] = Field(
        default=list(EVENTS),
        max_length=16,
        description="all when left out; an empty list to be told only of jobs that name it as callback",
    )
    matter: MatterName | None = Field(default=None, description="only what belongs to this matter")


class RotationRequest(JsonModel):
    """For how long the secret before signs beside the new one."""

    grace_seconds: float = Field(default=GRACE_SECONDS, ge=0, le=30 * 86_400, allow_inf_nan=False)


class WebhookView(BaseModel):
    """A registered endpoint, without its secret."""

    id: str
    url: str
    events: list[EventName]
    matter: str | None
    created_at: datetime
    disabled_at: datetime | None
    reason: str | None = Field(description="why it is disabled")
    old_secret_until: datetime | None = Field(description="until when the secret before signs too, or did")

    @classmethod
    def of(cls, webhook: Webhook) -> WebhookView:
        """The view of a record."""
        return cls(
            id=webhook.id,
            url=webhook.url,
            events=list(webhook.events),
            matter=webhook.matter,
            created_at=moment(webhook.created),
            disabled_at=moment(webhook.disabled) if webhook.disabled else None,
            reason=webhook.reason or None,
            old_secret_until=moment(webhook.old_secret_until) if webhook.old_secret_until else None,
        )


class NewSecretView(WebhookView):
    """An endpoint with its new secret, which is shown this one time."""

    secret: str = Field(examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"])


class WebhookList(BaseModel):
    """Endpoints, oldest first."""

    data: list[WebhookView]


class AttemptView(BaseModel):
    """One attempt to send a message."""

    at: datetime
    seconds: float | None
    outcome: Annotated[str, named(("succeeded", "retry", "failed", "cancelled", "released", "worker_lost"))]
    status: int | None = Field(description="what the receiver answered when it accepted the message")
    problem: JobProblem = Field(description="why it did not arrive")


class DeliveryView(BaseModel):
    """A message to an endpoint; ``id`` is its ``webhook-id``, the same at every attempt."""

    id: str
    webhook: str
    event: str
    subject: str | None = Field(description="the job, run or batch that it tells of; null for a test")
    state: StateName = Field(description="scheduled: it is tried again later")
    created_at: datetime
    finished_at: datetime | None
    next_attempt_at: datetime | None
    tries: int
    attempts: list[AttemptView] = Field(description="the newest twenty, oldest first")

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryView:
        """The view of a record."""
        return cls(
            id=delivery.id,
            webhook=delivery.webhook,
            event=delivery.event,
            subject=delivery.subject or None,
            state=delivery.state,
            created_at=moment(delivery.created),
            finished_at=moment(delivery.finished) if delivery.finished else None,
            next_attempt_at=moment(delivery.due) if delivery.due else None,
            tries=delivery.tries,
            attempts=[
                AttemptView(
                    at=moment(attempt.at),
                    seconds=attempt.seconds,
                    outcome=attempt.outcome,
                    status=attempt.status,
                    problem=attempt.problem,
                )
                for attempt in delivery.attempts
            ],
        )


class DeliveryList(BaseModel):
    """Deliveries, newest first."""

    data: list[DeliveryView]
    next_cursor: NextCursor
