"""Verbs that keep and destroy: ``erase``, ``backup``, ``restore``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from gateway.cli.client import Client
from gateway.cli.output import note, show_json, wants_json
from gateway.stack.own_server import dump_queue, own_server
from services.backup import take_backup
from services.backup_folder import BackupFolder
from services.backup_places import BackupPlaces
from services.errors import InvalidRequest
from services.lifecycle import Lifecycle
from services.redis_client import connect, server_time
from services.restore import check_empty, check_snapshot, copy_back, erase_again, put_in_place, shut_out_again
from services.settings import Settings


@click.command()
@click.argument("document", required=False)
@click.option("--matter", help="Erase all of a matter instead: documents, jobs, runs, schedules.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def erase(settings: Settings, document: str | None, matter: str | None, yes: bool) -> None:
    """Erase a document, by its id, or a matter, with everything that was derived from it."""
    if (document is None) == (matter is None):
        raise click.UsageError("name either a document or --matter")
    what = f"the document {document}" if document else f"the matter {matter}"
    if not yes:
        click.confirm(f"Erase {what} for good?", abort=True)
    client = Client(settings)
    path = f"/v1/documents/{document}" if document else f"/v1/matters/{matter}"
    answer: dict[str, Any] = client.delete(path) or {}
    if wants_json():
        show_json({"erased": document or matter} | answer)
        return
    counts = {name: count for name, count in answer.items() if name != "matter" and count}
    click.echo(f"erased {what}" + (f": {', '.join(f'{n} {name}' for name, n in counts.items())}" if counts else ""))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--keep", type=click.IntRange(min=1), help="Remove all but so many of the newest backups.")
@click.option("--forget", is_flag=True, help="Make none; FOLDER is gone for good, so erasures look for it no more.")
@click.pass_obj
def backup(settings: Settings, folder: Path, keep: int | None, forget: bool) -> None:
    """Add a backup to FOLDER; what is there already is not copied again. Runs beside a stack that is up."""
    if forget:
        BackupPlaces(settings.data_dir).forget(folder)
        note(f"erasures look for {folder} no more")
        return
    kept = BackupFolder(folder)
    with own_server(settings) as reachable:
        ours = "redis_url" not in settings.model_fields_set
        client = connect(reachable)
        at = server_time(client)
        client.close()
        taken = take_backup(
            settings.data_dir, kept, at=at, dump=(lambda target: dump_queue(reachable, target)) if ours else None
        )
    forgotten = kept.forget_all_but(keep) if keep else 0
    snapshot = taken.snapshot
    view: dict[str, Any] = {
        "backup": snapshot.name,
        "blobs": len(snapshot.blobs),
        "copied": taken.copied,
        "erased": taken.removed,
        "forgotten": forgotten,
        "sealed": bool(snapshot.master),
        "queue": bool(snapshot.queue),
    }
    if wants_json():
        show_json(view)
        return
    blobs = f"{len(snapshot.blobs)} blobs, {taken.copied} of them new"
    click.echo(f"{snapshot.name}: {blobs}; {taken.removed} erased since the last")
    if not snapshot.queue:
        note("REDIS_URL is not ours to copy: save that server before this, as docs/operations.md says")
    if snapshot.master:
        note(f"the master key is not in it; keep a copy of {settings.master_key_path} elsewhere")
    else:
        note("nothing is sealed here: what is erased later stays readable in the records of this backup")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--backup", "name", help="One of those in the folder; without it the newest.")
@click.pass_obj
def restore(settings: Settings, folder: Path, name: str | None) -> None:
    """Restore a backup into an empty data folder, and erase and revoke again what was since."""
    kept = BackupFolder(folder)
    snapshot = kept.read(name)
    check_empty(settings.data_dir)
    gone = check_snapshot(kept, snapshot)
    restored = settings.data_dir.with_name(f".{settings.data_dir.name}.restoring")
    shutil.rmtree(restored, ignore_errors=True)
    if not snapshot.queue and "redis_url" not in settings.model_fields_set:
        raise InvalidRequest(
            f"{snapshot.name} has no queue: restore the Redis server it went with, and set REDIS_URL to it",
            code="queue_missing",
        )
    copy_back(kept, snapshot, restored)
    key = str(settings.master_key_path) if snapshot.master and settings.master_key_path else "none"
    at_work = settings.model_copy(update={"data_dir": restored, "master_key_file": key})
    with own_server(at_work) as reachable:
        lifecycle = Lifecycle(reachable)
        revoked = shut_out_again(kept, snapshot, lifecycle)
        erased = erase_again(kept, snapshot, lifecycle)
        lifecycle.client.close()
    put_in_place(restored, settings.data_dir)
    if wants_json():
        show_json(
            {"restored": snapshot.name, "blobs": len(snapshot.blobs) - gone, "erased": erased, "revoked": revoked}
        )
        return
    click.echo(f"restored {snapshot.name} into {settings.data_dir}: {len(snapshot.blobs) - gone} blobs")
    if erased:
        note(f"{erased} documents and matters that were erased since are erased here too")
    if revoked:
        note(f"{revoked} keys that were revoked or got another secret since are revoked here; make new ones")


COMMANDS = (erase, backup, restore)
