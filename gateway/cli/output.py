"""How the command line speaks: tables and colours on a terminal, plain lines elsewhere, JSON where asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

console = Console(highlight=False, soft_wrap=True)


def wants_json() -> bool:
    """Whether ``--json`` was given."""
    return bool(click.get_current_context().find_root().params.get("json_output"))


def show_json(value: Any) -> None:
    """One JSON document on one line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on a terminal, tab-separated lines elsewhere."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join("" if cell is None else str(cell) for cell in row))
        return
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    # The first column is what the other verbs take: a terminal too narrow for it must not cut it.
    table.columns[0].min_width = max((len(str(row[0])) for row in rows), default=0)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console.print(table)


def note(text: str) -> None:
    """A line for the person at the terminal, beside the output."""
    click.echo(text, err=True)


def stderr() -> Console:
    """The terminal beside the output, for progress."""
    return Console(stderr=True)
