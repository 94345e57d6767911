"""Writes what a stack with the fake engine answers to the description's requests: the examples of its answers.

``python -m tests.record_examples`` writes ``gateway/openapi/answers/<tag>.json`` anew, to be read before it is kept.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from gateway.openapi.example_ids import EXAMPLE_IDS
from tests.described import Description
from tests.integration.conftest import running
from tests.prepared import Prepared

FOLDER = Path(__file__).parents[1] / "gateway" / "openapi" / "answers"
# Lists that show what there is to see in their first few rows.
ROWS, EVENTS = 3, 8
_ID = re.compile(r"\b(doc|job|run|sch|wh|dlv|file|batch|chatcmpl|cmpl|key|req|text|res)([_-])[0-9a-f]{8,64}\b")
_SECRET = re.compile(r"\b(cm_)[0-9a-f]{12}_[0-9a-f]{48}\b")
_SIGNING = re.compile(r"whsec_[A-Za-z0-9+/=]+")
_KNOWN = {name.removesuffix("_id"): value for name, value in EXAMPLE_IDS.items() if name.endswith("_id")}
_PREFIXES = {"doc": "document", "sch": "schedule", "wh": "webhook", "dlv": "delivery"}


def main() -> None:
    """Record everything."""
    recorded: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as stack:
        description = Description(stack.http.get("/openapi.json").json())
        house = Prepared(stack)
        for operation, example, answer in house.answers(description):
            print(operation.id, example, answer.status_code, *description.misfits(operation, answer), sep=" | ")
            media_type = answer.headers.get("content-type", "").partition(";")[0]
            if not answer.is_success or not media_type:
                continue
            text = _plain(answer.text, house.ids)
            whole = media_type == "application/json"
            body: Any = _few(json.loads(text)) if whole else _begin(text, "\n\n" if "event" in media_type else "\n")
            kept = {"status": answer.status_code, "media_type": media_type, "body": body}
            recorded[operation.about["tags"][0]].setdefault(operation.id, {})[example] = kept
    FOLDER.mkdir(exist_ok=True)
    for tag, operations in recorded.items():
        (FOLDER / f"{tag}.json").write_text(_written(operations), encoding="utf-8")


def _written(operations: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A line for each answer."""
    named: list[str] = []
    for name, examples in operations.items():
        lines = [
            f"  {json.dumps(example)}: {json.dumps(kept, ensure_ascii=False)}" for example, kept in examples.items()
        ]
        named.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(named) + "\n}\n"


def _plain(text: str, ids: dict[str, str]) -> str:
    """The answer with the description's ids, and with nothing of this machine's."""
    for name, value in ids.items():
        if len(value) > 9:
            text = text.replace(value, EXAMPLE_IDS[name])
    given = {value: value for value in EXAMPLE_IDS.values()}

    def example(found: re.Match[str]) -> str:
        usual = _KNOWN.get(_PREFIXES.get(found[1], found[1]), f"{found[1]}{found[2]}3f0c9a7be15d48c2a6e19b70")
        return given.setdefault(found[0], f"{usual[:-2]}{len(given):02x}")

    text = _ID.sub(example, text)
    text = _SECRET.sub(f"cm_{EXAMPLE_IDS['key_id']}_" + "0123456789abcdef" * 3, text)
    text = _SIGNING.sub("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", text)
    text = re.sub(r'"(name|model|by|id)": ?"fake"', rf'"\1":"{EXAMPLE_IDS["model_id"]}"', text)
    text = text.replace("0" * 64, "9c41" * 16)
    text = re.sub(r'"id": ?"[0-9a-f]{12}"', f'"id":"{EXAMPLE_IDS["key_id"]}"', text)
    text = re.sub(r'"pid": ?\d+', '"pid":4211', text)
    return re.sub(r'"host": ?"[^"]*"|@[a-z-]+\.\d+', _host, text)


def _host(found: re.Match[str]) -> str:
    return "@office.4211" if found[0].startswith("@") else '"host":"office"'


def _few(value: Any) -> Any:
    """JSON with the first rows of its lists of things."""
    if isinstance(value, dict):
        return {name: _few(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_few(one) for one in value if not isinstance(one, dict)] or [_few(one) for one in value[:ROWS]]
    return value


def _begin(text: str, end: str) -> str:
    """The first lines or events of a text."""
    return end.join(text.split(end)[:EVENTS]) + (end if text.count(end) >= EVENTS else "")


if __name__ == "__main__":
    main()
