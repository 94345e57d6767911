"""Verb ``count``: says how many findings of a playbook each document of a matter has."""

from __future__ import annotations

from typing import Any

import click

from gateway.cli.client import Client
from gateway.cli.duplicates import followed
from gateway.cli.output import note, show_table, wants_json
from gateway.cli.work import PRIORITIES
from services.jobs import Device
from services.settings import Settings


@click.command()
@click.argument("matter")
@click.option("--playbook", default="default", show_default=True, help="One of `casemill playbooks list`.")
@click.option("--device", type=click.Choice([device.value for device in Device]), default="any", show_default=True)
@click.option("--priority", type=PRIORITIES, default="normal", show_default=True)
@click.pass_obj
def count(settings: Settings, matter: str, **options: str) -> None:
    """Count a playbook's findings in each document of a matter, those with most first."""
    client = Client(settings)
    view = followed(client, client.post("/v1/counts", {"matter": matter} | options)["id"])
    if not wants_json():
        _print(view["result"])


def _print(result: dict[str, Any]) -> None:
    """A row a document and category, then the sums, and what was not counted in and why."""
    rows = [
        (document["document"], document["name"], category, findings)
        for document in result["documents"]
        for category, findings in document["counts"].items()
    ]
    if rows:
        show_table(("document", "name", "category", "findings"), rows)
    for category in result["categories"]:
        if category["findings"]:
            note(f"{category['title']}: {category['findings']} in {category['documents']} documents")
    note(f"{result['counted']} documents counted in by {result['playbook']['name']}")
    for document in result["documents"]:
        for noted in document.get("notes", ()):
            note(f"{document['name']}: {noted}")
    for item in result["unread"]:
        note(f"not counted: {item['name'] or item['document']}: {item['detail']} [{item['code']}]")
    note(result["notice"])


COMMANDS = (count,)
