"""The results of a run as JSONL or CSV, read document by document, so that no run fills the gateway's memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from gateway.conditional import entity_tag
from gateway.result_schemas import ExtractResult, ReviewResult
from gateway.schemas import StateName
from gateway.state import Gateway
from services.errors import NotFound
from services.runs import RunDocument

COLUMNS = (
    "number",
    "name",
    "document",
    "state",
    "pages",
    "risk",
    "clauses",
    "missing",
    "breached",
    "terms",
    "personal_data",
    "reused",
    "seconds",
    "problem",
    "detail",
)
_OPEN = ("waiting", "running")
# What a spreadsheet takes for a formula; names and quotes come from strangers' documents.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class RunResult(BaseModel):
    """A line of a run's results: a document that has ended, with its whole result where it succeeded."""

    number: int
    name: str | None
    document: str
    job: str | None
    state: StateName
    reused: bool
    seconds: float | None
    code: str | None
    detail: str | None
    result: ReviewResult | ExtractResult | None


def jsonl(gateway: Gateway, tenant: str, run: str) -> Iterator[str]:
    """One line for each document that has ended: what became of it and its whole result."""
    for row, result in _ended(gateway, tenant, run):
        line = _facts(row) | {"result": result}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def table(gateway: Gateway, tenant: str, run: str) -> Iterator[str]:
    """A CSV row for each document that has ended, as a person sorts them in a spreadsheet."""
    yield _csv(COLUMNS)
    for row, result in _ended(gateway, tenant, run):
        cells = _facts(row) | _summary(result or {})
        cells |= {"problem": row.code, "seconds": row.seconds}
        yield _csv([_cell(cells.get(column)) for column in COLUMNS])


def results_tag(gateway: Gateway, tenant: str, run: str, form: str) -> str:
    """The tag of the results as they are now: which documents have ended how, and which results are still there."""
    facts: list[Any] = [form]
    for row in gateway.runs.documents(tenant, run):
        if row.state not in _OPEN:
            there = row.result is not None and gateway.blobs.path(tenant, row.result).exists()
            facts.append((row.document, row.name, row.state, row.job, row.result, there))
    return entity_tag(json.dumps(facts).encode())


def _ended(gateway: Gateway, tenant: str, run: str) -> Iterator[tuple[RunDocument, dict[str, Any] | None]]:
    for row in gateway.runs.documents(tenant, run):
        if row.state in _OPEN:
            continue
        if row.result is None:
            yield row, None
            continue
        try:
            yield row, json.loads(gateway.blobs.get(tenant, row.result))
        except NotFound as lost:
            yield replace(row, code=lost.code, detail=lost.detail), None


def _facts(row: RunDocument) -> dict[str, Any]:
    return {
        "number": row.number,
        "name": row.name,
        "document": row.document,
        "job": row.job,
        "state": row.state,
        "reused": row.reused,
        "seconds": row.seconds,
        "code": row.code,
        "detail": row.detail,
    }


def _summary(result: dict[str, Any]) -> dict[str, Any]:
    """The columns of a review; an extraction has its pages alone."""
    titles = list(dict.fromkeys(clause["category"] for clause in result.get("clauses", ())))
    return {
        "pages": result.get("pages"),
        "risk": result["risk"]["score"] if "risk" in result else None,
        "clauses": "; ".join(titles),
        "missing": "; ".join(item["category"] for item in result.get("missing", ())),
        "breached": "; ".join(rule["title"] for rule in result.get("rules", ()) if rule["outcome"] == "breached"),
        "terms": "; ".join(f"{term['term']}: {term['quote']}" for term in result.get("terms", ())),
        "personal_data": len(result["pii"]) if "pii" in result else None,
    }


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _csv(cells: tuple[str, ...] | list[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
