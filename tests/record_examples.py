"""Writes what a stack with the fake engine answers to the description's requests: the examples of its answers.

``python -m tests.record_examples`` writes ``gateway/openapi/answers/<tag>.json`` anew, to be read before it is kept.
Two recordings are the same apart from times and what was measured.

The stack has the models of the description installed, which its engine plays, so that every name is one that a firm
could see; what the engine writes stays as it is, and says itself where it comes from.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from gateway.openapi.example_ids import EXAMPLE_IDS
from services.models import Kind, Model
from tests.conftest import wait_until
from tests.described import Description
from tests.integration.conftest import Running, running
from tests.prepared import Prepared
from tests.retold import retold

FOLDER = Path(__file__).parents[1] / "gateway" / "openapi" / "answers"
# Lists that show what there is to see in their first few rows.
ROWS, EVENTS = 3, 8
MODEL, EMBEDDING_MODEL = EXAMPLE_IDS["model_id"], EXAMPLE_IDS["embedding_model_id"]


def main() -> None:
    """Record everything."""
    recorded: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder:
        _install(Path(folder) / "models")
        with running(Path(folder), default_model=MODEL, embedding_model=EMBEDDING_MODEL) as stack:
            description = Description(stack.http.get("/openapi.json").json())
            house = Prepared(stack, model=MODEL, embedding_model=EMBEDDING_MODEL)
            _rest(stack)
            for one in house.answers(description):
                answer = one.answer
                print(one.operation.id, one.example, answer.status_code, *description.misfits(one.operation, answer))
                media_type = answer.headers.get("content-type", "").partition(";")[0]
                if answer.is_success and media_type:
                    body = retold(_kept(media_type, answer.text), one.ids)
                    kept = {"status": answer.status_code, "media_type": media_type, "body": body}
                    recorded[one.operation.about["tags"][0]].setdefault(one.operation.id, {})[one.example] = kept
                _rest(stack)
    FOLDER.mkdir(exist_ok=True)
    for tag, operations in recorded.items():
        (FOLDER / f"{tag}.json").write_text(_written(operations), encoding="utf-8")


def _install(folder: Path) -> None:
    """A catalog of the description's models, whose files hold nothing."""
    folder.mkdir()
    kinds: dict[str, tuple[Kind, int]] = {MODEL: ("generate", 4096), EMBEDDING_MODEL: ("embed", 512)}
    rows: list[dict[str, Any]] = []
    for name, (kind, tokens) in kinds.items():
        path = folder / f"{name}.gguf"
        path.touch()
        model = Model(
            name, kind, path, hashlib.sha256(name.encode()).hexdigest(), 0, "Apache-2.0", "none", tokens, 384, "", ""
        )
        rows.append(model.to_json())
    (folder / "catalog.json").write_text(json.dumps({"version": 1, "models": rows}), encoding="utf-8")


def _rest(stack: Running) -> None:
    """Wait until nothing is under way, so that each answer is of the same state each time."""
    http, under_way = stack.http, {"state": ["queued", "running", "waiting"], "limit": 1}

    def quiet() -> bool:
        jobs = http.get("/v1/jobs", params=under_way).json()["data"]
        batches = http.get("/v1/batches").json()["data"]
        workers = http.get("/v1/workers").json()["data"]
        ended = ("completed", "failed", "cancelled", "expired")
        return not jobs and all(one["status"] in ended for one in batches) and not any(one["busy"] for one in workers)

    wait_until(quiet, 60)


def _written(operations: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A line for each answer."""
    named: list[str] = []
    for name, examples in operations.items():
        lines = [
            f"  {json.dumps(example)}: {json.dumps(kept, ensure_ascii=False)}" for example, kept in examples.items()
        ]
        named.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(named) + "\n}\n"


def _kept(media_type: str, text: str) -> Any:
    """What of a body is shown."""
    if media_type == "application/json":
        return _few(json.loads(text))
    end = "\n\n" if media_type == "text/event-stream" else "\n"
    return end.join(text.split(end)[:EVENTS]) + (end if text.count(end) >= EVENTS else "")


def _few(value: Any) -> Any:
    """JSON with the first rows of its lists of things."""
    if isinstance(value, dict):
        return {name: _few(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_few(one) for one in value if not isinstance(one, dict)] or [_few(one) for one in value[:ROWS]]
    return value


if __name__ == "__main__":
    main()
