"""Verbs that give work and look at it: ``review``, ``submit``, ``watch``, ``show``, ``jobs``, ``cancel`` and more."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gateway.cli.client import Client
from gateway.cli.output import note, show_json, show_table, stderr, wants_json
from gateway.cli.review_text import print_review
from services.errors import CasemillError, Conflict, Transient, from_problem
from services.jobs import JobType, Priority
from services.settings import Settings

PRIORITIES = click.Choice([priority.value for priority in Priority])


def review_one(client: Client, file: Path, **options: str | None) -> dict[str, Any]:
    """Upload, review and wait, with progress on the terminal; answers the job. Raises the job's problem.

    ``options`` are priority, model, matter, playbook and callback of the job; a ``None`` is left to the gateway.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), TimeElapsedColumn())
    with Progress(*columns, transient=True, disable=not sys.stderr.isatty(), console=stderr()) as progress:
        task = progress.add_task(f"{file.name}: upload", total=None)
        document = client.upload(file.read_bytes(), file.name, options.get("matter"))
        request = {"type": "review", "document": document, **options}
        job = client.post("/v1/jobs", {name: value for name, value in request.items() if value is not None})
        steps: list[str] = job["steps"]
        progress.update(task, total=len(steps), description=f"{file.name}: {steps[0]}")
        for event, data in following(client, job["id"]):
            if event == "step":
                done = steps.index(data["step"]) + (data["state"] == "succeeded")
                progress.update(task, completed=done, description=f"{file.name}: {data['step']} {data['state']}")
    return finished(client, job["id"])


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--priority", type=PRIORITIES, default="high", show_default=True)
@click.option("--model", help="Generation model; `none` leaves generation out.")
@click.option("--matter", help="The matter that the documents belong to.")
@click.option("--playbook", help="A name or version of `casemill playbooks list`; else `default`.")
@click.option("--callback", help="A webhook, by id or URL, that is told of each end.")
@click.pass_obj
def review(settings: Settings, files: tuple[Path, ...], **options: str | None) -> None:
    """Review documents and print what was found."""
    client = Client(settings)
    failed = 0
    for file in files:
        try:
            job = review_one(client, file, **options)
        except CasemillError as error:
            if error.code in ("gateway_away", "unauthorized"):
                raise
            failed += 1
            if wants_json():
                show_json({"file": str(file), "problem": error.problem()})
            else:
                click.secho(f"{file.name}: {error.detail} [{error.code}]", fg="red", err=True)
            continue
        if wants_json():
            show_json({"file": str(file), "job": job})
        else:
            print_review(job["result"])
    if len(files) > 1:
        note(f"{len(files) - failed} of {len(files)} documents reviewed")
    if failed:
        sys.exit(1)


@click.command()
@click.argument("job_type", metavar="TYPE", type=click.Choice([job_type.value for job_type in JobType]))
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--input", "input_json", help='JSON input, e.g. \'{"prompt": "…", "max_tokens": 64}\'.')
@click.option("--priority", type=PRIORITIES, default="normal", show_default=True)
@click.option("--device", default="any", show_default=True)
@click.option("--model")
@click.option("--matter")
@click.option("--playbook")
@click.option("--callback", help="A webhook, by id or URL, that is told of the end.")
@click.option("--wait", is_flag=True, help="Follow the job to its end.")
@click.pass_obj
def submit(
    settings: Settings, job_type: str, file: Path | None, input_json: str | None, wait: bool, **options: Any
) -> None:
    """Submit a job on a document or a JSON input and print its id."""
    client = Client(settings)
    body: dict[str, Any] = {"type": job_type} | {name: value for name, value in options.items() if value is not None}
    if file:
        body["document"] = client.upload(file.read_bytes(), file.name, options["matter"])
    if input_json:
        try:
            body["input"] = json.loads(input_json)
        except ValueError as error:
            raise click.BadParameter(f"not JSON: {error}", param_hint="--input") from None
    job = client.post("/v1/jobs", body)
    if wait:
        _watch(client, job["id"])
    elif wants_json():
        show_json(job)
    else:
        click.echo(job["id"])


@click.command()
@click.argument("job")
@click.pass_obj
def watch(settings: Settings, job: str) -> None:
    """Follow a job's states, steps and text to its end."""
    _watch(Client(settings), job)


@click.command()
@click.option("--state", multiple=True, help="queued, running, waiting, succeeded, failed, cancelled …")
@click.option("--limit", default=20, show_default=True)
@click.pass_obj
def jobs(settings: Settings, state: tuple[str, ...], limit: int) -> None:
    """List the newest jobs."""
    _show_jobs(Client(settings).get("/v1/jobs", state=list(state), limit=limit)["data"])


@click.command()
@click.option("--limit", default=20, show_default=True)
@click.pass_obj
def dead(settings: Settings, limit: int) -> None:
    """List the jobs that failed for good; `casemill retry` runs one again."""
    _show_jobs(Client(settings).get("/v1/dead-letters", limit=limit)["data"])


@click.command()
@click.argument("job")
@click.pass_obj
def retry(settings: Settings, job: str) -> None:
    """Run a job again that failed, was cancelled or expired; a review goes on where it ended."""
    answer = Client(settings).post(f"/v1/jobs/{job}/retry", {})
    if wants_json():
        show_json(answer)
    else:
        click.echo(answer["state"])


@click.command()
@click.argument("job")
@click.pass_obj
def show(settings: Settings, job: str) -> None:
    """Print a job again: a review as text, anything else as JSON."""
    view = Client(settings).get(f"/v1/jobs/{job}")
    if view["type"] == "review" and view["result"] and not wants_json():
        print_review(view["result"])
    else:
        show_json(view)


@click.command()
@click.argument("job")
@click.pass_obj
def cancel(settings: Settings, job: str) -> None:
    """Cancel a job."""
    answer = Client(settings).delete(f"/v1/jobs/{job}")
    if wants_json():
        show_json(answer)
    else:
        click.echo("cancelling" if answer["cancelling"] else answer["state"])


def finished(client: Client, job: str) -> dict[str, Any]:
    """The job once it has succeeded. Raises its problem where it has not."""
    for _ in following(client, job):
        pass
    view = client.get(f"/v1/jobs/{job}")
    check_success(view)
    return view


def following(client: Client, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The job's events; a gateway that stays away does not take the job along, and the message says so."""
    try:
        yield from client.follow_job(job)
    except Transient as error:
        raise Transient(f"{error.detail}; {job} is kept: `casemill watch {job}` goes on", code=error.code) from None


def _show_jobs(found: list[dict[str, Any]]) -> None:
    if wants_json():
        for job in found:
            show_json(job)
        return
    columns = ("id", "type", "state", "priority", "step", "attempt", "created", "problem")
    rows = [
        (
            job["id"],
            job["type"],
            job["state"],
            job["priority"],
            job["step"],
            job["attempt"],
            job["created_at"][:19],
            job["problem"]["code"] if job["problem"] else None,
        )
        for job in found
    ]
    show_table(columns, rows)


def _watch(client: Client, job: str) -> None:
    streamed = False
    for event, data in client.follow_job(job):
        if wants_json():
            show_json({"event": event, "data": data})
        elif event == "token":
            streamed = True
            click.echo(data["text"], nl=False)
        else:
            if streamed:
                click.echo()
                streamed = False
            detail = " ".join(str(data[name]) for name in ("step", "state", "attempt") if name in data)
            note(f"{event} {detail}".strip())
    view = client.get(f"/v1/jobs/{job}")
    if wants_json():
        show_json(view)
    check_success(view)


def check_success(job: dict[str, Any]) -> None:
    """Raise the problem of a job that has not succeeded."""
    if job["problem"]:
        raise from_problem(job["problem"])
    if job["state"] != "succeeded":
        raise Conflict(f"the job {job['id']} ended as {job['state']}; submit it again", code=f"job_{job['state']}")


COMMANDS = (review, submit, watch, jobs, show, cancel, dead, retry)
