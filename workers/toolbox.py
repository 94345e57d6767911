"""What every task of a worker process works with, made once at its start."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services.batches import Batches
from services.blobs import Blobs
from services.documents import Documents
from services.errors import NotFound, Transient
from services.files import Files
from services.jobs import PROMPTS, Claim, Lane
from services.known_models import KnownModels
from services.playbook_store import PlaybookStore
from services.playbooks import Playbook
from services.sealed_records import owners_of
from services.settings import Settings
from services.texts import DocumentText
from workers.documents.reader import reader_version
from workers.engines.registry import Engines
from workers.rooms import Rooms

# Of a prompt's result so much goes into its record, which costs the disk less than two files' syncs.
INLINE_RESULT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Stores and engines, shared by all threads."""

    settings: Settings
    blobs: Blobs
    documents: Documents
    engines: Engines
    playbooks: PlaybookStore
    files: Files
    batches: Batches
    models: KnownModels
    holds: Callable[[Claim], bool] = lambda _: True
    rooms: Rooms = field(default_factory=Rooms)

    def input(self, claim: Claim) -> dict[str, Any]:
        """The job's input; a large one lies in a blob that the record names."""
        blob = claim.input.get("blob")
        return json.loads(self.blobs.get(claim.tenant, blob)) if blob else claim.input

    def opened(self, claim: Claim) -> Claim:
        """The claim with its input at hand."""
        return replace(claim, input=self.input(claim))

    def derive(
        self, claim: Claim, kind: str, version: str, compute: Callable[[], bytes], *, document: str | None = None
    ) -> dict[str, Any]:
        """A step's result: the blob of an output of a document, computed unless this very version is there already.

        ``version`` names all that the output depends on beside the document's text, ``document`` another one than the
        job's own. An input with ``force`` has it computed again.
        """
        document = document or str(self.input(claim)["document"])
        if blob := self.kept(claim, kind, version, document):
            return {"output": blob, "reused": True, "seconds": 0.0}
        started = time.monotonic()
        blob = self.keep(claim, kind, version, document, compute())
        return {"output": blob, "reused": False, "seconds": round(time.monotonic() - started, 4)}

    def kept(self, claim: Claim, kind: str, version: str, document: str) -> str | None:
        """The blob of a document's output of this very version, unless the job wants it computed again."""
        if self.input(claim).get("force"):
            return None
        return self.documents.output(claim.tenant, document, self._label(kind, version))

    def keep(self, claim: Claim, kind: str, version: str, document: str, data: bytes) -> str:
        """The blob in which a document's output is kept from now on; ``NotFound`` where the document was deleted."""
        blob = self.blobs.put(claim.tenant, kind, data, owners=(document,))
        self.documents.keep_output(claim.tenant, document, self._label(kind, version), blob)
        return blob

    def _label(self, kind: str, version: str) -> str:
        return f"{kind}:{reader_version(self.settings)}:{version}"

    def keep_result(self, claim: Claim, result: dict[str, Any]) -> str:
        """Store a job's result; one about a document, or that names several, is erased with any of them.

        Answers what stands for it in the record: a blob's name, or the small result of a prompt itself, as JSON.
        Raises ``NotFound`` when the job's document or matter was erased meanwhile, ``Transient`` when one of several
        documents was.
        """
        if claim.lane is Lane.DELIVER:  # what became of it stands in the record: there are many, and small
            return str(result["status"])
        document = str(self.input(claim).get("document", ""))
        data = json.dumps(result, ensure_ascii=False).encode()
        if claim.parent is None and claim.task in PROMPTS and len(data) <= INLINE_RESULT_BYTES:
            return data.decode()
        about = owners_of(claim.tenant, document or None, claim.matter)
        named = documents_of(result)
        owners = {*about, *named}
        blob = self.blobs.put(claim.tenant, "res", data, owners=owners, scope=claim.member)
        if document:
            self._register(claim, [document], blob)
        if named:
            try:
                self._register(claim, named, blob)
            except NotFound as error:  # the next attempt leaves it out
                raise Transient(error.detail, code="document_deleted") from None
        # Of a matter alone no record says that it is gone; an erasure ends the claim before it looks for files.
        if claim.matter and not document and not self.holds(claim):
            self.blobs.delete(claim.tenant, blob)
            raise NotFound("the job was ended while it was worked on", code="job_ended")
        return blob

    def _register(self, claim: Claim, documents: Sequence[str], blob: str) -> None:
        kept = self.settings.result_ttl_seconds
        self.documents.keep_result(claim.tenant, documents, claim.id, blob, kept_seconds=kept)

    def step(self, claim: Claim, step: str) -> dict[str, Any]:
        """The result of an earlier step of the same parent."""
        return json.loads(self.blobs.get(claim.tenant, claim.outputs[step]))

    def step_output(self, claim: Claim, step: str) -> bytes:
        """The derived output that an earlier step named."""
        return self.blobs.get(claim.tenant, self.step(claim, step)["output"])

    def playbook(self, claim: Claim) -> Playbook:
        """The playbook of the job: the version it was given, or the text it carries because it is not stored."""
        body = self.input(claim)
        return self.playbooks.read(claim.tenant, str(body["playbook"]), text=body.get("playbook_text"))

    def text(self, claim: Claim) -> DocumentText:
        """The document's text, from the extract step of the same parent."""
        return DocumentText.from_json(self.step_output(claim, "extract"))


def documents_of(result: dict[str, Any]) -> list[str]:
    """The documents that a result names: ids under ``documents``, or rows with a name there and under ``unread``."""
    rows: list[Any] = [*result.get("documents", ()), *result.get("unread", ())]
    return [
        row if isinstance(row, str) else str(row["document"]) for row in rows if isinstance(row, str) or row.get("name")
    ]
