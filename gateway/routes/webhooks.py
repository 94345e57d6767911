"""``/v1/webhooks``: endpoints that are told of the ends of jobs, runs and batches, and the log of what was sent."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from gateway.keyed_route import KeyedRoute
from gateway.openapi.answers import answer
from gateway.openapi.raises import raises
from gateway.paging import Cursor, Limit
from gateway.resolving import check_endpoint
from gateway.schemas import StateName
from gateway.state import Admin, Gateway, Shared
from gateway.submissions import choose
from gateway.webhook_schemas import (
    DeliveryList,
    DeliveryView,
    NewSecretView,
    RotationRequest,
    WebhookList,
    WebhookRequest,
    WebhookView,
)
from services.errors import InvalidRequest
from services.jobs import State, check_name
from services.principal import Principal
from services.webhooks import EVENTS, Webhook

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=KeyedRoute)


@router.post(
    "",
    status_code=201,
    responses={201: answer("Location", "Cache-Control", description="The endpoint with its secret, this one time")},
)
@raises(
    check_endpoint,
    "event_unknown",
    "name_invalid",
    "webhooks_full",
    "webhook_exists",
    "audit_busy",
)
async def register_webhook(
    body: WebhookRequest, response: Response, gateway: Shared, principal: Admin
) -> NewSecretView:
    """Register an endpoint; the answer has the secret that signs its messages, this one time."""
    for event in body.events:
        if event not in EVENTS:
            raise InvalidRequest(f"unknown event {event!r}; there are: {', '.join(EVENTS)}", code="event_unknown")
    if body.matter is not None:
        check_name(body.matter, "matter")
    await check_endpoint(body.url, gateway.settings.webhook_allowed)
    webhook, secret = await run_in_threadpool(_add, gateway, principal, body)
    response.headers["Location"] = f"/v1/webhooks/{webhook.id}"
    return _with_secret(response, webhook, secret)


@router.get("")
def list_webhooks(gateway: Shared, principal: Admin) -> WebhookList:
    """All endpoints, without their secrets."""
    return WebhookList(data=[WebhookView.of(webhook) for webhook in gateway.webhooks.list(principal.tenant)])


@router.get("/{webhook_id}")
@raises("webhook_unknown")
def get_webhook(webhook_id: str, gateway: Shared, principal: Admin) -> WebhookView:
    """One endpoint, without its secret."""
    return WebhookView.of(gateway.webhooks.get(principal.tenant, webhook_id))


@router.post("/{webhook_id}/disable")
@raises("webhook_unknown", "audit_busy")
def disable_webhook(webhook_id: str, gateway: Shared, principal: Admin) -> WebhookView:
    """Send nothing more; what it would have been told of is kept as failed deliveries, which can be replayed."""
    webhook = gateway.webhooks.disable(principal.tenant, webhook_id, "an administrator disabled it")
    gateway.audit.note(principal.tenant, principal.key_id, "webhook.disabled", webhook_id)
    return WebhookView.of(webhook)


@router.post("/{webhook_id}/enable")
@raises("webhook_unknown", "audit_busy")
def enable_webhook(webhook_id: str, gateway: Shared, principal: Admin) -> WebhookView:
    """Send again from now on."""
    webhook = gateway.webhooks.enable(principal.tenant, webhook_id)
    gateway.audit.note(principal.tenant, principal.key_id, "webhook.enabled", webhook_id)
    return WebhookView.of(webhook)


@router.delete("/{webhook_id}", status_code=204, response_class=Response)
@raises("webhook_unknown", "audit_busy")
def remove_webhook(webhook_id: str, gateway: Shared, principal: Admin) -> None:
    """Remove an endpoint with its log; what still waits to be sent to it is not sent."""
    gateway.webhooks.get(principal.tenant, webhook_id)
    gateway.audit.note(principal.tenant, principal.key_id, "webhook.removed", webhook_id)
    gateway.webhooks.remove(principal.tenant, webhook_id)


@router.post("/{webhook_id}/rotate", responses={200: answer("Cache-Control")})
@raises("webhook_unknown", "audit_busy")
def rotate_secret(
    webhook_id: str, response: Response, gateway: Shared, principal: Admin, body: RotationRequest | None = None
) -> NewSecretView:
    """Give the endpoint a new secret; until the grace period ends, each message has a signature by both."""
    grace = (body or RotationRequest()).grace_seconds
    rotated = gateway.webhooks.rotate(principal.tenant, webhook_id, grace)
    gateway.audit.note(principal.tenant, principal.key_id, "webhook.rotated", webhook_id)
    return _with_secret(response, *rotated)


@router.post("/{webhook_id}/test", status_code=202)
@raises("webhook_unknown", "webhook_disabled", "delivery_unknown")
def test_webhook(webhook_id: str, request: Request, gateway: Shared, principal: Admin) -> DeliveryView:
    """Send the endpoint a message of the type ``webhook.test``."""
    return DeliveryView.of(gateway.deliveries.test(principal.tenant, webhook_id, request.state.request_id))


@router.get("/{webhook_id}/deliveries")
@raises("webhook_unknown", "state_unknown", "cursor_invalid")
def list_deliveries(
    webhook_id: str,
    gateway: Shared,
    principal: Admin,
    state: Annotated[list[StateName] | None, Query(description="in one of these states")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> DeliveryList:
    """What was sent to the endpoint, newest first, with every attempt."""
    states = [choose(State, name, "state") for name in state or []]
    page = gateway.deliveries.page(principal.tenant, webhook_id, states=states, cursor=cursor, limit=limit)
    return DeliveryList(data=[DeliveryView.of(row) for row in page.rows], next_cursor=page.next_cursor)


@router.get("/{webhook_id}/deliveries/{delivery_id}")
@raises("delivery_unknown")
def get_delivery(webhook_id: str, delivery_id: str, gateway: Shared, principal: Admin) -> DeliveryView:
    """One message and its attempts."""
    return DeliveryView.of(gateway.deliveries.get(principal.tenant, webhook_id, delivery_id))


@router.post("/{webhook_id}/deliveries/{delivery_id}/replay", status_code=202)
@raises("delivery_unknown", "delivery_state", "audit_busy")
def replay_delivery(webhook_id: str, delivery_id: str, gateway: Shared, principal: Admin) -> DeliveryView:
    """Send a message again that has succeeded or failed; it keeps its ``webhook-id``."""
    delivery = gateway.deliveries.replay(principal.tenant, webhook_id, delivery_id)
    gateway.audit.note(principal.tenant, principal.key_id, "delivery.replayed", delivery_id)
    return DeliveryView.of(delivery)


def _add(gateway: Gateway, principal: Principal, body: WebhookRequest) -> tuple[Webhook, str]:
    events = list(dict.fromkeys(body.events))
    webhook, secret = gateway.webhooks.add(principal.tenant, body.url, events, body.matter)
    gateway.audit.note(principal.tenant, principal.key_id, "webhook.created", webhook.id, matter=body.matter or "")
    return webhook, secret


def _with_secret(response: Response, webhook: Webhook, secret: str) -> NewSecretView:
    response.headers["Cache-Control"] = "no-store"
    return NewSecretView(**WebhookView.of(webhook).model_dump(), secret=secret)
