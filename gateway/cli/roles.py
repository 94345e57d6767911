"""Verbs that run parts of the system: ``up``, ``demo``, ``gateway``, ``worker``, ``flower``."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from importlib.resources import as_file, files
from pathlib import Path
from types import FrameType
from typing import Any

import click

from gateway.cli.client import Client
from gateway.cli.output import note, show_json, wants_json
from gateway.cli.review_text import print_review
from gateway.cli.work import review_one
from gateway.client_file import ClientFile
from gateway.stack.children import Stopped
from gateway.stack.supervisor import Stack, Started
from services.settings import Settings


@click.command()
@click.pass_obj
def up(settings: Settings) -> None:
    """Start everything on this machine; Ctrl-C stops it, and accepted work is kept."""
    stop = threading.Event()
    with _stopping(stop.set), Stack(settings, note, stop) as stack:
        started = stack.start()
        _print_started(settings, started)
        while not stop.wait(0.5):
            stack.watch()
        note("stopping: what runs goes back to the backlog")


@click.command()
@click.pass_obj
def demo(settings: Settings) -> None:
    """Start everything in a folder of its own, review a sample contract, print the review, stop."""
    if "redis_url" in settings.model_fields_set:
        note("the demo runs its own server and leaves REDIS_URL alone")
        settings = settings.with_own_server()
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="casemill-demo-", ignore_cleanup_errors=True) as folder:
        # Converted weights stay where `up` finds them; documents and the queue go with the folder.
        own = {"data_dir": Path(folder) / "data", "models_dir": settings.models_folder, "port": 0, "flower_port": 0}
        own |= {"host": "127.0.0.1", "flower_host": "127.0.0.1", "key": None}
        settings = settings.model_copy(update=own)
        with _stopping(stop.set), Stack(settings, note, stop) as stack:
            started = stack.start()
            note(f"the stack is up at {started.url}: {', '.join(role.name for role in started.workers)}")
            client = Client(settings.model_copy(update={"url": started.url}))
            sample_file = as_file(files("gateway.cli") / "sample_contract.pdf")
            with sample_file as sample, _interrupted(stop):
                job = review_one(client, sample, priority="high", model=None, matter=None)
            if wants_json():
                show_json(job)
            else:
                print_review(job["result"])


@click.command()
@click.pass_obj
def gateway(settings: Settings) -> None:
    """Serve the HTTP API."""
    import uvicorn

    from gateway.app import create_app
    from gateway.serving import OTHER_FILES, allow_files, serving_options
    from services.processes import keep_for_good

    allow_files(settings.max_connections + OTHER_FILES)
    app = create_app(settings)
    keep_for_good()
    uvicorn.run(app, **serving_options(settings))


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(arguments: tuple[str, ...]) -> None:
    """Run one worker: --name, --device, --lanes, --slots, --cores, --gpu, --weight (`casemill worker --help`)."""
    command = [sys.executable, "-m", "workers", "run", *arguments]
    if sys.platform == "win32":
        sys.exit(subprocess.run(command, check=False).returncode)
    os.execv(command[0], command)  # noqa: S606 (same process id, so that signals and leases find the worker)


@click.command()
@click.pass_obj
def flower(settings: Settings) -> None:
    """Run Flower below /flower/, for the gateway in front of it."""
    from services.broker import create_celery
    from services.processes import give_way

    give_way()
    if settings.flower_host not in ("127.0.0.1", "localhost", "::1") and not settings.flower_password:
        raise click.UsageError("set CASEMILL_FLOWER_PASSWORD here and at the gateway before Flower binds a network")
    if settings.flower_password:
        os.environ["FLOWER_BASIC_AUTH"] = f"casemill:{settings.flower_password}"  # not in the list of processes
    app = create_celery(settings)
    arguments = ["flower", f"--address={settings.flower_host}", f"--port={settings.flower_port}"]
    # A ticket says nothing to a person; the columns show the job that it runs.
    arguments += ["--tasks_columns=args,kwargs,state,started,runtime,worker,uuid"]
    app.start([*arguments, "--url_prefix=flower", "--logging=warning"])


def _print_started(settings: Settings, started: Started) -> None:
    view: dict[str, Any] = {
        "url": started.url,
        "docs": f"{started.url}/docs",
        "flower": f"{started.url}/flower/",
        "login": started.login,
        "key_file": str(ClientFile(settings.data_dir).path),
        "server": started.server,
        "workers": [role.name for role in started.workers],
    }
    if wants_json():
        show_json(view)
        return
    click.echo(f"Casemill {importlib.metadata.version('casemill')} is up")
    click.echo(f"  API      {started.url}   docs {started.url}/docs")
    click.echo(f"  Flower   {started.url}/flower/")
    click.echo(f"  log in   {started.login}   (works once, for 10 minutes)")
    click.echo(f"  key      in {view['key_file']}")
    click.echo(f"  queue    {started.server}")
    for role in started.workers:
        cores = f"cores {','.join(map(str, role.cores))}" if role.cores else "all cores"
        place = f"GPU {role.gpu}" if role.gpu is not None else cores
        click.echo(f"  worker   {role.name}: {', '.join(role.lanes)} on {place}, {role.slots} slots")
    click.echo("Ctrl-C stops everything; accepted work is kept.")
    sys.stdout.flush()


@contextlib.contextmanager
def _stopping(on_stop: Callable[[], None]) -> Generator[None]:
    """Answer SIGINT and SIGTERM by a call."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        on_stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _interrupted(stop: threading.Event) -> Generator[None]:
    """End what reads a stream, and so cannot look at the event, by raising ``Stopped`` inside it, once."""

    def interrupt() -> None:
        if not stop.is_set():
            stop.set()
            raise Stopped

    with _stopping(interrupt):
        if stop.is_set():
            raise Stopped
        yield


COMMANDS = (up, demo, gateway, worker, flower)
