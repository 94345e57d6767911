"""Last step of a batch: writes what came of its lines into two files, of answers and of errors, in the lines' order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from services.batch_lines import Line, lines, read_line, written
from services.batches import ADD_BATCH, Batch, LineEnd
from services.files import described
from workers.execution import Execution, Stopped
from workers.toolbox import Toolbox

PURPOSE = "batch_output"


def write_output(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """How many lines were written. An execution after one that died behind its record only tidies up."""
    claim = execution.claim
    batch = toolbox.batches.get(claim.tenant, claim.input["batch"])
    if batch.usage is None:
        _write(toolbox, execution, batch)
    for _, end in _ended(toolbox, execution, batch):
        if end.result:
            toolbox.blobs.delete(batch.tenant, end.result)
    return {"lines": batch.total}


def _write(toolbox: Toolbox, execution: Execution, batch: Batch) -> None:
    used: Counter[str] = Counter()

    def answers() -> Iterator[bytes]:
        for line, end in _ended(toolbox, execution, batch):
            if end.result:
                body: dict[str, Any] = json.loads(toolbox.blobs.get(batch.tenant, end.result))["body"]
                used.update(body["usage"])
                yield written(batch, line.number, _name(line), end, body)

    def errors() -> Iterator[bytes]:
        for line, end in _ended(toolbox, execution, batch):
            if not end.result:
                yield written(batch, line.number, _name(line), end, None)

    files: dict[str, dict[str, Any]] = {}
    for name, count, blocks in (
        ("output", batch.succeeded, answers()),
        ("errors", batch.total - batch.succeeded, errors()),
    ):
        if count:
            # Named by the batch, so that who writes it again writes the same file.
            file = f"file-{batch.id.partition('_')[2]}-{name}"
            size = toolbox.files.write(batch.tenant, file, blocks)
            files[name] = described(file, f"{batch.id}_{name}.jsonl", size, PURPOSE, batch.owner, batch.lasts)
    if not toolbox.batches.record_output(execution.claim, files, dict(used)):
        raise Stopped


def _ended(toolbox: Toolbox, execution: Execution, batch: Batch) -> Iterator[tuple[Line, LineEnd]]:
    found = lines(toolbox.files.blocks(batch.tenant, batch.file))
    while part := list(islice(found, ADD_BATCH)):
        ends = toolbox.batches.ends(batch.tenant, batch.id, [line.place for line in part])
        for pair in zip(part, ends, strict=True):
            execution.check()
            yield pair


def _name(line: Line) -> str:
    return read_line(line.data or b"")["custom_id"]
