"""A worker's tasks and the queue of batches, driven by hand, for tests that let anything die at any step."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.stack.valkey import EmbeddedValkey
from services.batches import Batch, Batches, BatchSubmission
from services.blobs import Blobs
from services.documents import Documents
from services.errors import CasemillError, Transient
from services.files import Files
from services.fleet import Fleet
from services.jobs import Claim, Completion, Device, Lane
from services.known_models import KnownModels
from services.lifecycle import Lifecycle
from services.models import Catalog
from services.playbook_store import PlaybookStore
from services.seals import Seals
from services.settings import Settings
from services.webhooks import Webhooks
from tests.conftest import leaked_keys
from workers.engines.registry import Engines
from workers.execution import Execution, Stopped
from workers.tasks import tasks
from workers.toolbox import Toolbox

URL = "/v1/completions"
NEEDLE = "Quetzalcoatlus Holdings"
DEVICES = (Device.CPU, Device.ANY)


class Fakes(KnownModels):
    def names(self, kind: str, *, within: float = 0.0) -> list[str]:
        return ["fake", *super().names(kind, within=within)]


@dataclass
class House:
    """A worker's tasks and the queue, driven by hand."""

    lifecycle: Lifecycle
    blobs: Blobs
    files: Files = field(init=False)
    batches: Batches = field(init=False)

    def __post_init__(self) -> None:
        lifecycle, config = self.lifecycle, self.lifecycle.settings
        catalog = Catalog(config.models_folder)
        self.files, self.batches = Files(lifecycle, self.blobs), Batches(lifecycle)
        self.engines = Engines(config, catalog, 1)
        toolbox = Toolbox(
            config,
            self.blobs,
            Documents(lifecycle.client, lifecycle.keys, self.blobs),
            self.engines,
            PlaybookStore(lifecycle.client, lifecycle.keys, self.blobs),
            self.files,
            self.batches,
            Fakes(catalog, Fleet(lifecycle.client, lifecycle.keys)),
        )
        self.tasks, self.keep = tasks(toolbox, Webhooks(lifecycle)), toolbox.keep_result

    def submit(self, count: int, broken: tuple[int, ...] = (), **changes: Any) -> Batch:
        rows: list[dict[str, Any]] = [
            {
                "custom_id": f"line {number}",
                "method": "POST",
                "url": URL,
                "body": {"model": "fake", "prompt": "" if number in broken else f"{number}?", "max_tokens": 3}
                | changes,
            }
            for number in range(count)
        ]
        data = "\n".join(json.dumps(row) for row in rows).encode()
        file = self.files.add("acme", [data[:100], data[100:]], size=len(data), filename=NEEDLE, purpose="batch")
        told = {"case": NEEDLE}
        return self.batches.submit(BatchSubmission("acme", URL, file.id, told, lasts=3600))[0]

    def claim(self, worker: str = "w1") -> Claim | None:
        for lane in (Lane.EXTRACT, Lane.GENERATE):
            for claim in self.lifecycle.work([], lane=lane, devices=DEVICES, worker=worker, n=1)[1]:
                return claim
        return None

    def run(self, claim: Claim) -> Completion:
        execution = Execution(claim, self.lifecycle, lambda: False)
        try:
            return Completion(claim, "succeeded", result=self.keep(claim, self.tasks[claim.task](execution)))
        except Stopped:
            return Completion(claim, "cancelled")
        except Transient as error:
            return Completion(claim, "retry", problem=error.problem(), retry_after=9e9)
        except CasemillError as error:
            return Completion(claim, "failed", problem=error.problem())
        finally:
            execution.close()

    def end(self, completion: Completion) -> Any:
        (state,) = self.lifecycle.work([completion], lane=completion.claim.lane, devices=DEVICES, worker="w1", n=0)[0]
        return state

    def work_off(self, most: int = 10_000) -> int:
        done = 0
        while done < most and (claim := self.claim()):
            self.end(self.run(claim))
            done += 1
        return done

    def time_comes(self) -> None:
        raw: Any = self.lifecycle.client
        for name in ("scheduled", "expiries"):
            for member in raw.zrange(self.lifecycle.keys(name), 0, -1):
                raw.zadd(self.lifecycle.keys(name), {member: 1})
        self.lifecycle.care()

    def rows(self, file: str | None) -> list[dict[str, Any]]:
        return [json.loads(line) for line in b"".join(self.files.blocks("acme", file)).splitlines()] if file else []

    def tidy(self) -> None:
        """Ends everything and removes every file; then nothing without an end may be left, and no blob."""
        for batch in self.batches.list("acme", limit=100)[0]:
            self.lifecycle.cancel("acme", batch.id)
        self.lifecycle.care(dead_workers=["w1", "w2"])
        while self.work_off():
            self.time_comes()
        for file in self.files.list("acme", limit=100)[0]:
            self.files.remove("acme", file.id)
        raw: Any = self.lifecycle.client
        prefix = self.lifecycle.keys.prefix
        for queue in ("extract.any", "generate.any"):
            raw.delete(self.lifecycle.keys("tickets", queue=queue))
        for lane, priority in itertools.product(Lane, ("normal", "bulk")):
            raw.delete(self.lifecycle.keys("clock", lane=lane, priority=priority))
        assert not (leaked := leaked_keys(self.lifecycle.client, prefix)), leaked
        assert not list(self.blobs.root.glob("*/*/file*")), "bytes of a file that has no record"
        for name in raw.scan_iter(f"{prefix}*"):
            raw.delete(name)
        self.engines.close()


def made(server: EmbeddedValkey, folder: Path, engine: str = "fake", *, sealed: bool = False) -> House:
    values = {
        "REDIS_URL": server.url,
        "prefix": f"test-{os.urandom(4).hex()}:",
        "run_window": 3,
        "data_dir": folder,
        "engine": engine,
    }
    config = Settings.model_validate(values)
    if sealed:
        assert Seals.make_master_key(config)
    lifecycle = Lifecycle(config)
    return House(lifecycle, Blobs(folder, lifecycle.records.seals))
