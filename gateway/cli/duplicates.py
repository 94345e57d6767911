"""Verb ``duplicates``: compares the documents of a matter and prints the clusters of those that are nearly alike."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gateway.cli.client import Client
from gateway.cli.output import note, show_json, show_table, stderr, wants_json
from gateway.cli.work import PRIORITIES, check_success, following
from services.settings import Settings


@click.command()
@click.argument("matter")
@click.option("--threshold", type=click.FloatRange(0.5, 1), default=0.8, show_default=True, help="Least similarity.")
@click.option("--ignore-numbers", is_flag=True, help="Leave out words with digits: dates, amounts, numbers.")
@click.option("--priority", type=PRIORITIES, default="normal", show_default=True)
@click.pass_obj
def duplicates(settings: Settings, matter: str, **options: Any) -> None:
    """Find near-duplicates among the documents of a matter; only documents that are new to it are read."""
    client = Client(settings)
    view = followed(client, client.post("/v1/duplicates", {"matter": matter} | options)["id"])
    if not wants_json():
        _print(view["result"])


def followed(client: Client, job: str) -> dict[str, Any]:
    """The job once it has succeeded, shown as JSON where asked, with a bar of documents on the terminal meanwhile.

    Raises its problem where it has not.
    """
    columns = (SpinnerColumn(), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, TextColumn("documents"), transient=True, disable=not sys.stderr.isatty(), console=stderr()
    ) as shown:
        task = shown.add_task("", total=None)
        for event, data in following(client, job):
            if event == "progress":
                shown.update(task, total=data["total"], completed=data["documents"])
    view = client.get(f"/v1/jobs/{job}")
    if wants_json():
        show_json(view)
    check_success(view)
    return view


def _print(result: dict[str, Any]) -> None:
    """A row a document that is in a cluster, then what was not compared and why."""
    names = result["documents"]
    rows = [
        (number, f"{member['jaccard']:.6f}", member["document"], names[member["document"]]["name"])
        for number, cluster in enumerate(result["clusters"], 1)
        for member in cluster["documents"]
    ]
    if rows:
        show_table(("cluster", "similarity", "document", "name"), rows)
    note(
        f"{result['compared']} documents compared ({result['computed']} new): {len(result['pairs'])} pairs in "
        f"{len(result['clusters'])} clusters; the first of each cluster is most like all others"
    )
    if not result["all_pairs"]:
        note("there are more pairs than are listed; the clusters are complete")
    for document in result["too_short"]:
        note(f"not compared: {names[document]['name']} has fewer than five words")
    for item in result["unread"]:
        name = names.get(item["document"], {}).get("name", item["document"])
        note(f"not compared: {name}: {item['detail']} [{item['code']}]")
    note(result["notice"])


COMMANDS = (duplicates,)
