"""The other side of `make bench NAME=run`: a review's tasks in one process, with no queue between them.

``python -m tests.benchmarks.run_alone DATA_DIR THREADS`` reads the contracts' paths from stdin and prints seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import workers.engines  # pyright: ignore[reportUnusedImport]  # noqa: F401 (llama.cpp before numpy)
from gateway.stack.valkey import reachable_settings
from services.batches import Batches
from services.blobs import Blobs
from services.documents import Documents
from services.files import Files
from services.fleet import Fleet
from services.jobs import Claim, Lane, Priority
from services.known_models import KnownModels
from services.lifecycle import Lifecycle
from services.models import CLAUSE_MODEL, Catalog
from services.playbook_store import PlaybookStore
from services.playbooks import default_playbook
from services.settings import Settings
from services.webhooks import Webhooks
from workers.engines.registry import Engines
from workers.execution import Execution
from workers.hardware import usable_cores
from workers.tasks import tasks
from workers.toolbox import Toolbox

STEPS = {
    "extract": "extract",
    "scan": "scan",
    "sensitive": "sensitive",
    "context": "context",
    "clauses": "clauses",
    "report": "report",
}


def main() -> int:
    """Review every contract on so many threads."""
    home, threads = Path(sys.argv[1]), int(sys.argv[2])
    files = [Path(line) for line in sys.stdin.read().splitlines()]
    base = reachable_settings(Settings.model_validate({"data_dir": home}))
    # Documents of its own, or it would find what the run or an earlier call has computed.
    folder = Path(tempfile.mkdtemp(prefix="alone-", dir=home))
    own = base.model_copy(update={"data_dir": folder, "prefix": f"{folder.name}:"})
    lifecycle, blobs = Lifecycle(own), Blobs(own.data_dir)
    documents = Documents(lifecycle.client, lifecycle.keys, blobs)
    catalog = Catalog(base.models_folder)
    engines = Engines(own, catalog, len(usable_cores()))
    playbooks = PlaybookStore(lifecycle.client, lifecycle.keys, blobs)
    known = KnownModels(catalog, Fleet(lifecycle.client, lifecycle.keys))
    toolbox = Toolbox(own, blobs, documents, engines, playbooks, Files(lifecycle, blobs), Batches(lifecycle), known)
    named = tasks(toolbox, Webhooks(lifecycle))
    stored = [(documents.add("bench", file.read_bytes(), name=file.name).id, file.name) for file in files]
    engines.embedding(CLAUSE_MODEL)

    def review(item: tuple[str, str]) -> None:
        body = {"document": item[0], "name": item[1], "playbook": default_playbook().version}
        first = Claim(
            "bench", item[0], 1, "", Lane.ANALYZE, Priority.BULK, body, CLAUSE_MODEL, item[0], None, {}, None
        )  # fmt: skip
        outputs: dict[str, str] = {}
        for step, task in STEPS.items():
            claim = replace(first, id=f"{item[0]}.{step}", task=task, step=step, outputs=dict(outputs))
            result = named[task](Execution(claim, lifecycle, lambda: False))
            outputs[step] = toolbox.keep_result(claim, result)

    began = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(review, stored))
    print(time.monotonic() - began)
    engines.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
