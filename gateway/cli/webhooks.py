"""Verbs of endpoints that are told of ends: ``webhooks add | list | remove | rotate | test | deliveries`` and more."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from gateway.cli.client import Client
from gateway.cli.output import note, show_json, show_table, wants_json
from services.errors import Unavailable
from services.settings import Settings
from services.webhooks import EVENTS, GRACE_SECONDS

# A test that has no outcome by then waits for a worker.
TEST_SECONDS = 60


@click.group()
def webhooks() -> None:
    """Tell other systems of the ends of jobs, runs and batches; docs/guides/webhooks.md shows how to receive that."""


@webhooks.command("add")
@click.argument("url")
@click.option("--event", "events", multiple=True, type=click.Choice(EVENTS), help="Once for each; all without it.")
@click.option("--callbacks-only", is_flag=True, help="Tell it only of jobs and runs that name it as their callback.")
@click.option("--matter", help="Only what belongs to this matter.")
@click.pass_obj
def add(settings: Settings, url: str, events: tuple[str, ...], callbacks_only: bool, matter: str | None) -> None:
    """Register an endpoint and print the secret that signs its messages, this one time."""
    if events and callbacks_only:
        raise click.UsageError("give either --event or --callbacks-only")
    body: dict[str, Any] = {"url": url} | ({"matter": matter} if matter else {})
    if events or callbacks_only:
        body["events"] = list(events)
    _show_secret(Client(settings).post("/v1/webhooks", body))


@webhooks.command("list")
@click.pass_obj
def list_webhooks(settings: Settings) -> None:
    """List the endpoints, without their secrets."""
    found = Client(settings).get("/v1/webhooks")["data"]
    if wants_json():
        for view in found:
            show_json(view)
        return
    rows = [(view["id"], view["url"], ", ".join(view["events"]), view["matter"], view["reason"]) for view in found]
    show_table(("id", "url", "events", "matter", "disabled, as"), rows)


@webhooks.command("remove")
@click.argument("webhook")
@click.pass_obj
def remove(settings: Settings, webhook: str) -> None:
    """Remove an endpoint with its log; what still waits to be sent to it is not sent."""
    Client(settings).delete(f"/v1/webhooks/{webhook}")
    if wants_json():
        show_json({"removed": webhook})
    else:
        click.echo(f"removed {webhook}")


@webhooks.command("enable")
@click.argument("webhook")
@click.pass_obj
def enable(settings: Settings, webhook: str) -> None:
    """Send to an endpoint again from now on."""
    _show_state(Client(settings).post(f"/v1/webhooks/{webhook}/enable", {}))


@webhooks.command("disable")
@click.argument("webhook")
@click.pass_obj
def disable(settings: Settings, webhook: str) -> None:
    """Send nothing more; what happens meanwhile is kept as failed deliveries."""
    _show_state(Client(settings).post(f"/v1/webhooks/{webhook}/disable", {}))


@webhooks.command("rotate")
@click.argument("webhook")
@click.option(
    "--grace", "hours", default=GRACE_SECONDS / 3600, show_default=True, help="Hours in which the old secret signs too."
)
@click.pass_obj
def rotate(settings: Settings, webhook: str, hours: float) -> None:
    """Give an endpoint a new secret and print it, this one time."""
    _show_secret(Client(settings).post(f"/v1/webhooks/{webhook}/rotate", {"grace_seconds": hours * 3600}))


@webhooks.command("deliveries")
@click.argument("webhook")
@click.option("--state", multiple=True, help="queued, running, scheduled, succeeded, failed or cancelled")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200))
@click.pass_obj
def deliveries(settings: Settings, webhook: str, state: tuple[str, ...], limit: int) -> None:
    """List what was sent to an endpoint, newest first."""
    path = f"/v1/webhooks/{webhook}/deliveries"
    _show_deliveries(Client(settings).get(path, state=list(state), limit=limit)["data"])


@webhooks.command("replay")
@click.argument("webhook")
@click.argument("delivery")
@click.pass_obj
def replay(settings: Settings, webhook: str, delivery: str) -> None:
    """Send a message again that has succeeded or failed, under its own id."""
    _show_deliveries([Client(settings).post(f"/v1/webhooks/{webhook}/deliveries/{delivery}/replay", {})])


@webhooks.command("test")
@click.argument("webhook")
@click.pass_obj
def test(settings: Settings, webhook: str) -> None:
    """Send an endpoint a message of the type webhook.test, and say what became of it."""
    client = Client(settings)
    view = client.post(f"/v1/webhooks/{webhook}/test", {})
    until = time.monotonic() + TEST_SECONDS
    while view["state"] in ("queued", "running"):
        if time.monotonic() > until:
            raise Unavailable("no worker has sent the message yet; `casemill up` starts one", code="delivery_waits")
        time.sleep(0.2)
        view = client.get(f"/v1/webhooks/{webhook}/deliveries/{view['id']}")
    _show_deliveries([view])
    if view["state"] != "succeeded":
        sys.exit(1)


def _show_secret(view: dict[str, Any]) -> None:
    if wants_json():
        show_json(view)
        return
    click.echo(f"{view['id']}\t{view['secret']}")
    note("keep the secret where the endpoint runs: it is not shown again")


def _show_state(view: dict[str, Any]) -> None:
    if wants_json():
        show_json(view)
    else:
        click.echo(f"{view['id']} is " + (f"disabled: {view['reason']}" if view["disabled_at"] else "enabled"))


def _show_deliveries(found: list[dict[str, Any]]) -> None:
    if wants_json():
        for view in found:
            show_json(view)
        return
    columns = ("id", "event", "of", "state", "tries", "created", "next attempt", "last answer")
    show_table(columns, [_row(view) for view in found])


def _row(view: dict[str, Any]) -> tuple[Any, ...]:
    last: dict[str, Any] = view["attempts"][-1] if view["attempts"] else {}
    answer = last["problem"]["detail"] if last.get("problem") else last.get("status")
    following = view["next_attempt_at"]
    created = view["created_at"][:19]
    return (
        view["id"],
        view["event"],
        view["subject"],
        view["state"],
        view["tries"],
        created,
        following and following[:19],
        answer,
    )


COMMANDS = (webhooks,)
