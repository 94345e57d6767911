"""Verbs of a firm's own playbooks: ``playbooks list | show | validate | test | diff | upload | remove``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from gateway.cli.client import Client
from gateway.cli.output import note, show_json, show_table, wants_json
from gateway.cli.review_text import print_rules, quote
from gateway.cli.work import finished
from services.playbook_checks import term_count, warnings
from services.playbook_diff import diff
from services.playbooks import Playbook, load_playbook
from services.settings import Settings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
SHOWN_FINDINGS = 5


@click.group()
def playbooks() -> None:
    """What the firm looks for and which rules it holds contracts to; docs/playbooks.md shows how to write one."""


@playbooks.command("list")
@click.pass_obj
def list_playbooks(settings: Settings) -> None:
    """List the playbooks with their latest versions."""
    found = Client(settings).get("/v1/playbooks")["data"]
    if wants_json():
        for view in found:
            show_json(view)
        return
    rows = [(view["name"], view["version"][:12], _day(view["created_at"]), view["title"]) for view in found]
    show_table(("name", "version", "since", "title"), rows)


@playbooks.command("show")
@click.argument("playbook")
@click.pass_obj
def show(settings: Settings, playbook: str) -> None:
    """Print a playbook's YAML, by its name or one of its versions; beside it, all its versions."""
    view = Client(settings).get(f"/v1/playbooks/{playbook}")
    if wants_json():
        show_json(view)
        return
    click.echo(view["text"], nl=not view["text"].endswith("\n"))
    for version in view["versions"]:
        shown = "  shown" if version["version"] == view["version"] else ""
        note(f"{view['name']} {version['version'][:12]}  {_day(version['created_at'])}{shown}")


@playbooks.command("validate")
@click.argument("file", type=FILE)
def validate(file: Path) -> None:
    """Check a file; needs no gateway. Anything wrong is named with its line."""
    playbook = load_playbook(file.read_bytes())
    _show_check(playbook, {"warnings": warnings(playbook)})


@playbooks.command("upload")
@click.argument("file", type=FILE)
@click.pass_obj
def upload(settings: Settings, file: Path) -> None:
    """Keep a file as the latest version of the playbook that it names."""
    answer = Client(settings).post_text("/v1/playbooks", file.read_bytes())
    if wants_json():
        show_json(answer)
        return
    state = "uploaded" if answer["created"] else "its content was there already; it is the latest version"
    click.echo(f"{answer['name']} {answer['version'][:12]}: {state}")
    for warning in answer["warnings"]:
        note(f"note: {warning}")


@playbooks.command("test")
@click.argument("playbook", metavar="FILE|PLAYBOOK")
@click.argument("document", type=FILE)
@click.pass_obj
def test(settings: Settings, playbook: str, document: Path) -> None:
    """Run a playbook, a file or one that is kept, over a document and print what it finds; the file is not kept."""
    client = Client(settings)
    body = {"text": _checked_text(Path(playbook))} if Path(playbook).is_file() else {"playbook": playbook}
    body["document"] = client.upload(document.read_bytes(), document.name)
    result = finished(client, client.post("/v1/playbooks/test", body)["id"])["result"]
    if wants_json():
        show_json(result)
        return
    click.secho(f"{document.name}: risk {result['risk']['score']:.2f} of 1", bold=True)
    print_rules(result["rules"])
    _print_findings(result["findings"])
    for missing in result["missing"]:
        click.echo(f"  {missing['category']}: nothing, though it is required")


@playbooks.command("diff")
@click.argument("old", metavar="A")
@click.argument("new", metavar="B")
@click.pass_obj
def show_diff(settings: Settings, old: str, new: str) -> None:
    """Show what differs from A to B, each a file, the name of a playbook or a version."""
    before, after = _playbook(settings, old), _playbook(settings, new)
    found = diff(before, after)
    if wants_json():
        show_json({"from": before.version, "to": after.version, **found})
        return
    click.echo(f"{before.name} {before.version[:12]} → {after.name} {after.version[:12]}")
    if found["title"]:
        click.echo(f"  title: {found['title'][0]} → {found['title'][1]}")
    for kind, word in (("categories", "category"), ("rules", "rule")):
        for ident in found[kind]["removed"]:
            click.secho(f"- {word} {ident}", fg="red")
        for ident in found[kind]["added"]:
            click.secho(f"+ {word} {ident}", fg="green")
        for change in found[kind]["changed"]:
            _print_change(word, change)
    if before == after:
        click.echo("  nothing")


@playbooks.command("remove")
@click.argument("name")
@click.pass_obj
def remove(settings: Settings, name: str) -> None:
    """Take a playbook's name away; jobs and schedules that were given a version of it keep it."""
    Client(settings).delete(f"/v1/playbooks/{name}")
    if wants_json():
        show_json({"removed": name})
    else:
        click.echo(f"removed {name}")


def _playbook(settings: Settings, reference: str) -> Playbook:
    """A playbook from a file, or from the gateway where there is no such file."""
    if Path(reference).is_file():
        return load_playbook(Path(reference).read_bytes())
    return load_playbook(Client(settings).get(f"/v1/playbooks/{reference}")["text"])


def _checked_text(file: Path) -> str:
    """The text of a file that is a playbook; raises with line and reason before anything is uploaded."""
    data = file.read_bytes()
    load_playbook(data)
    return data.decode("utf-8-sig")


def _show_check(playbook: Playbook, found: dict[str, list[str]]) -> None:
    counts = {"categories": len(playbook.categories), "terms": term_count(playbook), "rules": len(playbook.rules)}
    if wants_json():
        show_json({"name": playbook.name, "title": playbook.title, "version": playbook.version, **counts, **found})
        return
    words = ", ".join(f"{count} {word}" for word, count in counts.items())
    click.echo(f"{playbook.name} {playbook.version[:12]}: {words}")
    for warning in found["warnings"]:
        note(f"note: {warning}")


def _print_findings(findings: list[dict[str, Any]]) -> None:
    grouped: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for finding in findings:
        grouped[finding["category"]].append(finding)
    click.echo(f"\nFindings ({len(findings)} in {len(grouped)} categories)")
    for category, found in sorted(grouped.items()):
        click.echo(f"  {category}")
        for finding in found[:SHOWN_FINDINGS]:
            click.echo(f"    p. {finding['page']}  {quote(finding['text'])}  at {finding['start']}")
        if len(found) > SHOWN_FINDINGS:
            click.echo(f"    and {len(found) - SHOWN_FINDINGS} more, in --json")


def _print_change(word: str, change: dict[str, Any]) -> None:
    click.echo(f"  {word} {change['id']}")
    for name, (before, after) in change["fields"].items():
        click.echo(f"      {name}: {_shown(before)} → {_shown(after)}")
    for term in change.get("terms_removed", ()):
        click.secho(f"    - {term}", fg="red")
    for term in change.get("terms_added", ()):
        click.secho(f"    + {term}", fg="green")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return "none" if value in (None, "") else str(value)


def _day(moment: str | None) -> str | None:
    return moment[:16].replace("T", " ") if moment else None


COMMANDS = (playbooks,)
