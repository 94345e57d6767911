"""Verbs of recurring runs: ``schedule add | list | pause | resume | remove``."""

from __future__ import annotations

from typing import Any

import click

from gateway.cli.client import Client
from gateway.cli.output import show_json, show_table, wants_json
from gateway.cli.work import PRIORITIES
from services.settings import Settings


@click.group()
def schedule() -> None:
    """Reviews of a matter that recur, by cron or rrule in a time zone."""


@schedule.command("add")
@click.argument("name")
@click.option("--matter", required=True, help="The matter whose documents each run goes over.")
@click.option("--cron", help="Five fields, e.g. '0 22 * * 5' for Fridays at 22:00.")
@click.option("--rrule", help="RFC 5545, e.g. 'FREQ=WEEKLY;BYDAY=FR;BYHOUR=22;BYMINUTE=0'.")
@click.option("--zone", default="UTC", show_default=True, help="IANA time zone, e.g. Europe/London.")
@click.option("--missed", type=click.Choice(["once", "skip", "all"]), default="once", show_default=True)
@click.option("--type", "job_type", type=click.Choice(["review", "analyze", "extract"]), default="review")
@click.option("--priority", type=PRIORITIES, default="bulk", show_default=True)
@click.option("--model", help="Generation model; `none` leaves generation out.")
@click.option("--playbook", help="A name or version of `casemill playbooks list`; its version of now is kept.")
@click.option("--force", is_flag=True, help="Compute again what was done for the same text and versions.")
@click.pass_obj
def add(settings: Settings, name: str, cron: str | None, rrule: str | None, zone: str, missed: str, **run: Any) -> None:
    """Keep a schedule; each due time makes exactly one run over the documents that the matter has then."""
    work = {"type": run.pop("job_type"), "name": name} | {key: value for key, value in run.items() if value is not None}
    body = {"name": name, "time_zone": zone, "missed": missed, "run": work}
    body |= {key: value for key, value in (("cron", cron), ("rrule", rrule)) if value is not None}
    _show([Client(settings).post("/v1/schedules", body)])


@schedule.command("list")
@click.pass_obj
def list_schedules(settings: Settings) -> None:
    """List the schedules with their next times."""
    _show(Client(settings).get("/v1/schedules")["data"])


@schedule.command("pause")
@click.argument("schedule_id", metavar="SCHEDULE")
@click.pass_obj
def pause(settings: Settings, schedule_id: str) -> None:
    """Let no due time fire until it is resumed."""
    _show([Client(settings).post(f"/v1/schedules/{schedule_id}/pause", {})])


@schedule.command("resume")
@click.argument("schedule_id", metavar="SCHEDULE")
@click.pass_obj
def resume(settings: Settings, schedule_id: str) -> None:
    """Go on with the first due time from now on."""
    _show([Client(settings).post(f"/v1/schedules/{schedule_id}/resume", {})])


@schedule.command("remove")
@click.argument("schedule_id", metavar="SCHEDULE")
@click.pass_obj
def remove(settings: Settings, schedule_id: str) -> None:
    """Remove a schedule; runs that it has started go on."""
    Client(settings).delete(f"/v1/schedules/{schedule_id}")


def _show(found: list[dict[str, Any]]) -> None:
    if wants_json():
        for view in found:
            show_json(view)
        return
    columns = ("id", "name", "matter", "rule", "zone", "next", "last run")
    show_table(columns, [_row(view) for view in found])


def _row(view: dict[str, Any]) -> tuple[Any, ...]:
    following = [time[:16].replace("T", " ") + " UTC" for time in view["next_times"][:2]]
    shown = "paused" if view["paused"] else ", ".join(following) or "ended"
    rule = view["cron"] or view["rrule"]
    return (view["id"], view["name"], view["matter"], rule, view["time_zone"], shown, view["last_run"])


COMMANDS = (schedule,)
