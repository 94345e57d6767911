"""Verbs of bulk work: ``run`` takes a folder, pattern or ZIP through a run; ``runs`` looks at runs and steers them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gateway.cli.client import Client
from gateway.cli.output import note, show_json, show_table, stderr, wants_json
from gateway.cli.sources import Source, describe, sources
from gateway.cli.work import PRIORITIES
from services.errors import CasemillError, Conflict, Permanent, Transient
from services.settings import Settings

# Documents that are named to the run in one request.
ADD_BATCH = 50
FULL_SECONDS = 60
_CHOSEN = ("matter", "callback", "priority", "model", "playbook", "force")


@click.command()
@click.argument("places", metavar="FOLDER|GLOB|ZIP…", nargs=-1, required=True)
@click.option("--name", help="What the run is called; the first place otherwise.")
@click.option("--type", "job_type", type=click.Choice(["review", "analyze", "extract"]), default="review")
@click.option("--matter", help="The matter that the documents belong to.")
@click.option("--priority", type=PRIORITIES, default="bulk", show_default=True)
@click.option("--model", help="Generation model; `none` leaves generation out.")
@click.option("--playbook", help="A name or version of `casemill playbooks list`; else `default`.")
@click.option("--callback", help="A webhook, by id or URL, that is told of the run's end.")
@click.option("--force", is_flag=True, help="Compute again what was done for the same text and versions.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Results at the end: a .jsonl or .csv file."
)
@click.option("--detach", is_flag=True, help="Upload, then leave the run to itself.")
@click.pass_obj
def run(settings: Settings, places: tuple[str, ...], out: Path | None, detach: bool, **options: Any) -> None:
    """Review all documents of folders, patterns and ZIP archives; what was done before is not done again."""
    client = Client(settings)
    documents = sources(places)
    request = {"name": options["name"] or places[0], "type": options["job_type"], "open": True}
    request |= {name: options[name] for name in _CHOSEN if options[name] is not None}
    created = client.post("/v1/runs", request)
    note(f"{created['id']}: {len(documents)} documents; `casemill runs show {created['id']}` shows it from anywhere")
    refused = _upload(client, settings, created["id"], documents, options["matter"])
    view = client.post(f"/v1/runs/{created['id']}/seal", {})
    if not detach:
        view = _follow(client, created["id"])
        if out:
            with out.open("wb") as target:
                client.download(f"/v1/runs/{created['id']}/results", target, format=_format(out))
            note(f"results in {out}")
    _show(view)
    if refused or view["state"] not in ("succeeded", "waiting", "scheduled"):
        sys.exit(1)


@click.group()
def runs() -> None:
    """Look at bulk runs and steer them."""


@runs.command("list")
@click.option("--limit", default=20, show_default=True)
@click.option("--schedule", help="Only the runs of this schedule.")
@click.pass_obj
def list_runs(settings: Settings, limit: int, schedule: str | None) -> None:
    """List the newest runs."""
    parameters: dict[str, Any] = {"limit": limit} | ({"schedule": schedule} if schedule else {})
    found = Client(settings).get("/v1/runs", **parameters)["data"]
    if wants_json():
        for view in found:
            show_json(view)
        return
    columns = ("id", "name", "state", "documents", "succeeded", "failed", "eta", "created")
    show_table(columns, [_row(view) for view in found])


@runs.command("show")
@click.argument("run_id", metavar="RUN")
@click.pass_obj
def show_run(settings: Settings, run_id: str) -> None:
    """Show a run, and the documents that did not succeed with their reasons."""
    client = Client(settings)
    view = client.get(f"/v1/runs/{run_id}")
    _show(view)
    if not wants_json() and view["failed"]:
        begin: dict[str, str] = {}
        while True:
            page = client.get(f"/v1/runs/{run_id}/documents", limit=1000, **begin)
            for row in page["data"]:
                if row["state"] == "failed":
                    click.echo(
                        f"  {row['number']:5d}  {row['name'] or row['document']}: {row['detail']} [{row['code']}]"
                    )
            if page["next_cursor"] is None:
                break
            begin = {"cursor": page["next_cursor"]}


@runs.command("watch")
@click.argument("run_id", metavar="RUN")
@click.pass_obj
def watch_run(settings: Settings, run_id: str) -> None:
    """Follow a run to its end."""
    view = _follow(Client(settings), run_id)
    _show(view)
    if view["state"] != "succeeded":
        sys.exit(1)


@runs.command("results")
@click.argument("run_id", metavar="RUN")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A .jsonl or .csv file; stdout otherwise.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), help="What the file's name says, else jsonl.")
@click.pass_obj
def results(settings: Settings, run_id: str, out: Path | None, form: str | None) -> None:
    """The results so far, also while the run goes on."""
    client, path = Client(settings), f"/v1/runs/{run_id}/results"
    if out is None:
        client.download(path, sys.stdout.buffer, format=form or "jsonl")
        return
    with out.open("wb") as target:
        client.download(path, target, format=form or _format(out))


def _steering(action: str, text: str) -> click.Command:
    @click.argument("run_id", metavar="RUN")
    @click.pass_obj
    def steer(settings: Settings, run_id: str) -> None:
        client = Client(settings)
        path = f"/v1/runs/{run_id}"
        _show(client.delete(path) if action == "cancel" else client.post(f"{path}/{action}", {}))

    return click.command(action, help=text)(steer)


for _action, _text in (
    ("pause", "Begin no further document; those under way go on."),
    ("resume", "Go on after a pause."),
    ("retry", "Run the documents again that did not succeed."),
    ("seal", "Say that no more documents come."),
    ("cancel", "Cancel what waits and what is under way."),
):
    runs.add_command(_steering(_action, _text))


def _upload(client: Client, settings: Settings, run_id: str, documents: list[Source], matter: str | None) -> int:
    """Upload and name the documents to the run as they come, so that it begins with the first; answers the refused."""
    refused, ids = 0, list[str]()
    columns = (
        SpinnerColumn(),
        TextColumn("upload"),
        BarColumn(24),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, transient=True, disable=not sys.stderr.isatty(), console=stderr()) as progress:
        task = progress.add_task("", total=len(documents))
        for source in documents:
            progress.update(task, description=source.name)
            try:
                data = source.read(settings.max_upload_bytes)
                ids.append(client.upload(data, source.name, matter, read=False))
            except CasemillError as error:
                if error.code in ("gateway_away", "unauthorized", "forbidden"):
                    raise
                refused += 1
                if wants_json():
                    show_json(describe(source, error))
                else:
                    click.secho(f"{source.name}: {error.detail} [{error.code}]", fg="red", err=True)
            progress.advance(task)
            if len(ids) >= ADD_BATCH:
                add_documents(client, run_id, ids)
                ids.clear()
    if ids:
        add_documents(client, run_id, ids)
    return refused


def add_documents(client: Client, run_id: str, ids: list[str]) -> None:
    """Name documents to the run; where as many tokens wait as the key may have waiting, once some have ended.

    Documents that can never wait all at once are named in halves.
    """
    while True:
        try:
            client.post(f"/v1/runs/{run_id}/documents", {"documents": ids})
            return
        except Permanent as large:
            if large.code != "tokens_exceeded" or len(ids) == 1:
                raise
            half = len(ids) // 2
            add_documents(client, run_id, ids[:half])
            ids = ids[half:]
        except Transient as full:
            if full.code != "tokens_full":
                raise
            seconds = full.retry_after or FULL_SECONDS
            note(f"{full.detail}; going on in {seconds:.0f} s")
            time.sleep(seconds)


def _follow(client: Client, run_id: str) -> dict[str, Any]:
    """Show the progress until the end; answers the run. Ctrl-C leaves the run to itself."""
    path = f"/v1/runs/{run_id}"
    columns = (
        SpinnerColumn(),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    terminal = sys.stderr.isatty()
    try:
        with Progress(*columns, transient=True, disable=not terminal, console=stderr()) as progress:
            task = progress.add_task("", total=None)
            for event, data in client.follow_run(run_id):
                if wants_json():
                    show_json({"event": event, "data": data})
                if "total" not in data:
                    continue
                ended = sum(data[state] for state in ("succeeded", "failed", "cancelled", "expired"))
                line = _progress(data, ended)
                progress.update(task, total=data["total"], completed=ended, description=line)
                if not terminal and not wants_json() and (ended % 50 == 0 or ended == data["total"]):
                    note(f"{ended} of {data['total']}: {line}")
    except KeyboardInterrupt:
        note(f"the run goes on; `casemill runs watch {run_id}` follows it, `casemill runs cancel {run_id}` ends it")
    return client.get(path)


def _progress(data: dict[str, Any], ended: int) -> str:
    parts = [f"{1 / data['pace']:.1f}/s"] if data.get("pace") else []
    if data.get("pace"):
        parts.append(f"{_duration(data['pace'] * (data['total'] - ended))} left")
    if data["failed"]:
        parts.append(f"{data['failed']} failed")
    return ", ".join([*parts, *([data["name"]] if data.get("name") else [])])


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _row(view: dict[str, Any]) -> tuple[Any, ...]:
    left = _duration(view["eta_seconds"])
    created = view["created_at"][:19]
    state = "paused" if view["paused"] and view["state"] == "waiting" else view["state"]
    return (view["id"], view["name"], state, view["total"], view["succeeded"], view["failed"], left, created)


def _show(view: dict[str, Any]) -> None:
    if wants_json():
        show_json(view)
        return
    counts = ", ".join(f"{view[name]} {name}" for name in ("succeeded", "failed", "cancelled", "expired") if view[name])
    reused = f" ({view['reused']} done before)" if view["reused"] else ""
    click.echo(
        f"{view['id']}  {view['name']}: {_row(view)[2]}, {view['total']} documents: {counts or 'none ended'}{reused}"
    )
    if view["eta_seconds"] is not None:
        click.echo(f"  {_duration(view['eta_seconds'])} left at {view['documents_per_second']:.1f} documents/s")


def _format(out: Path) -> str:
    form = out.suffix.lower().removeprefix(".")
    if form not in ("jsonl", "csv"):
        raise Conflict(f"{out}: name it .jsonl or .csv", code="format_unknown")
    return form


COMMANDS = (run, runs)
