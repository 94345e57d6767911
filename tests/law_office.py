"""A tenant with documents, jobs and runs against a real server, whose text is looked for in every byte that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.audit import Audit
from services.blobs import Blobs
from services.documents import Documents
from services.erasure import Erasures
from services.jobs import Claim, Job, JobType, Lane, Step, Submission
from services.lifecycle import Lifecycle
from services.runs import Runs
from services.settings import Settings
from tests.conftest import wait_until

NEEDLE = "Quetzalcoatlus Holdings"
FILE_NAME = "strictly-confidential-zymurgy.txt"
CASE = "divorce of Zebedee 2031-17"  # what a client calls a job
TELLING = (NEEDLE, FILE_NAME, CASE)
CONTRACT = f"""SERVICES AGREEMENT between {NEEDLE} and the Supplier.

The Supplier shall indemnify {NEEDLE} without limit. This Agreement is governed by the laws of England.
"""
PLAN = (Step("extract", "extract", Lane.EXTRACT), Step("scan", "scan", Lane.ANALYZE))


class Office:
    """The stores of one process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lifecycle = Lifecycle(settings)
        self.blobs = Blobs(settings.data_dir, self.lifecycle.records.seals)
        self.documents = Documents(self.lifecycle.client, self.lifecycle.keys, self.blobs)
        self.runs = Runs(self.lifecycle)
        self.erasures = Erasures(self.lifecycle, self.documents)
        self.audit = Audit(self.lifecycle.client, self.lifecycle.keys)

    @property
    def sealed(self) -> bool:
        return self.blobs.seals.on

    def upload(self, text: str = CONTRACT, name: str = FILE_NAME, matter: str | None = None) -> str:
        return self.documents.add("acme", text.encode(), name=name, matter=matter).id

    def submit(self, document: str | None, matter: str | None = None, **changes: Any) -> Job:
        name = self.documents.get("acme", document).name if document else ""
        body = {"document": document, "name": name} if document else {"prompt": NEEDLE}
        kind = JobType.REVIEW if document else JobType.GENERATE
        plan = PLAN if document else ()
        submission = Submission("acme", kind, body, document=document, matter=matter, plan=plan, **changes)
        return self.lifecycle.submit(submission)[0]

    def keep(self, held: Claim, document: str) -> str:
        blob = self.blobs.put("acme", "text", CONTRACT.encode(), owners=(document,))
        self.documents.keep_output("acme", document, f"text:{held.attempt}", blob)
        return blob

    def dump(self) -> bytes:
        return dump_of(self.lifecycle.client, self.settings.prefix)

    def settle(self) -> None:
        """What the caretaker does until nothing is pending."""
        wait_until(lambda: self.erasures.carry_on() == 0 and not self.erasures.pending(), 30, "the end of the erasure")


def dump_of(raw: Any, prefix: str) -> bytes:
    """Every key and value under a prefix, as the server gives them: what it compresses in its files among them."""
    found: list[str] = []
    for name in raw.scan_iter(f"{prefix}*"):
        kind = raw.type(name)
        read = {"hash": raw.hgetall, "string": raw.get, "stream": raw.xrange, "set": raw.smembers}
        read |= {"zset": lambda key: raw.zrange(key, 0, -1), "list": lambda key: raw.lrange(key, 0, -1)}
        found.append(f"{name} {read[kind](name)}")
    return "\n".join(found).encode()


def holding(folder: Path, *needles: str) -> list[Path]:
    """Files below a folder with any of these in their bytes."""
    wanted, found = [needle.encode() for needle in needles], list[Path]()
    for path in folder.rglob("*"):
        try:
            if path.is_file() and any(needle in path.read_bytes() for needle in wanted):
                found.append(path)
        except FileNotFoundError:  # the server's, while it rewrites its file
            continue
    return found
