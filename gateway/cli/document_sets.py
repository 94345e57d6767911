"""Verbs over several documents: ``search`` finds clauses, ``compare`` shows what changed between two versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gateway.cli.client import Client
from gateway.cli.output import note, show_json, wants_json
from gateway.cli.review_text import quote
from gateway.cli.work import PRIORITIES, finished
from services.settings import Settings

QUOTE_CHARS = 240
_MARKS = {"added": "+", "removed": "-", "changed": "~", "moved": ">"}
_COLOURS = {"added": "green", "removed": "red", "changed": "yellow", "moved": "cyan"}


@click.command()
@click.argument("query")
@click.option("--matter", help="Search all documents of this matter.")
@click.option("--document", "documents", multiple=True, help="Search this document or clause bank: an id or a file.")
@click.option("-k", "k", default=10, show_default=True, help="How many clauses.")
@click.option("--mode", type=click.Choice(["hybrid", "similar"]), default="hybrid", show_default=True)
@click.option("--priority", type=PRIORITIES, default="high", show_default=True)
@click.pass_obj
def search(settings: Settings, query: str, matter: str | None, documents: tuple[str, ...], **options: Any) -> None:
    """Find the clauses that fit QUERY, in a matter, in documents or in a clause bank."""
    if bool(matter) == bool(documents):
        raise click.UsageError("give either --matter or --document")
    client = Client(settings)
    body: dict[str, Any] = {"query": query} | options
    body |= {"matter": matter} if matter else {"documents": [_document(client, name) for name in documents]}
    job = finished(client, client.post("/v1/search", body)["id"])
    if wants_json():
        show_json(job)
        return
    result = job["result"]
    for skipped in result["skipped"]:
        note(f"{skipped['document']}: {skipped['detail']} [{skipped['code']}]")
    for hit in result["queries"][0]["hits"]:
        clause = f", clause {hit['clause']}" if "clause" in hit else ""
        click.secho(f"{hit['score']:.3f}  {hit['name']}{clause}, p. {hit['page']}", bold=True)
        click.echo(f"       {quote(hit['text'], QUOTE_CHARS)}")
    searched = result["searched"]
    note(f"{searched['clauses']} clauses of {searched['documents']} documents in {result['seconds']:.2f} s")
    note(result["notice"])


@click.command()
@click.argument("before")
@click.argument("after")
@click.option("--matter", help="The matter that files belong to.")
@click.option("--priority", type=PRIORITIES, default="high", show_default=True)
@click.pass_obj
def compare(settings: Settings, before: str, after: str, matter: str | None, priority: str) -> None:
    """Compare two versions of a document, files or ids, clause by clause."""
    client = Client(settings)
    body = {"before": _document(client, before, matter), "after": _document(client, after, matter)}
    body |= {"priority": priority} | ({"matter": matter} if matter else {})
    job = finished(client, client.post("/v1/compare", body)["id"])
    if wants_json():
        show_json(job)
        return
    result = job["result"]
    click.secho(f"{result['before']['name']}  →  {result['after']['name']}", bold=True)
    click.echo(", ".join(f"{count} {kind}" for kind, count in result["counts"].items()))
    for change in result["changes"]:
        _print_change(change)
    note(result["notice"])


def _print_change(change: dict[str, Any]) -> None:
    place = change["after"] or change["before"]
    pages = f"p. {place['page']}"
    if change["before"] and change["before"]["page"] != place["page"]:
        pages = f"p. {change['before']['page']} → {place['page']}"
    kind = change["kind"]
    click.secho(f"\n{_MARKS[kind]} {kind}, {pages}", fg=_COLOURS[kind])
    if "words" not in change:
        click.echo(f"  {quote(place['text'], QUOTE_CHARS)}")
    elif not change["words"]:
        click.echo(f"  {quote(place['text'], QUOTE_CHARS)}  (word for word)")
    for word in change.get("words", ()):
        old, new = (_cut(change[side], *word[side]) for side in ("before", "after"))
        click.echo("  " + "  ".join(([f"[-{old}-]"] if old else []) + ([f"{{+{new}+}}"] if new else [])))


def _cut(place: dict[str, Any], start: int, end: int) -> str:
    return " ".join(place["text"][start - place["start"] : end - place["start"]].split())


def _document(client: Client, name: str, matter: str | None = None) -> str:
    """The id of a document that is named by it, or of the file of that name, which is uploaded."""
    file = Path(name)
    return client.upload(file.read_bytes(), file.name, matter) if file.is_file() else name


COMMANDS = (search, compare)
