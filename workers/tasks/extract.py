"""Step ``extract``: the document's text with pages and paragraphs, read in a process of its own."""

from __future__ import annotations

import json
from typing import Any

from services.errors import CasemillError
from services.texts import DocumentText
from workers.documents.reader import read_document
from workers.execution import Execution, Stopped
from workers.toolbox import Toolbox

VERSION = "1"  # of how a text is kept; its readers have their own, see reader_version


def extract(toolbox: Toolbox, execution: Execution) -> dict[str, Any]:
    """Read the document; answers the text's blob with kind, pages, characters and notes."""
    return read_text(toolbox, execution, toolbox.input(execution.claim)["document"])[1]


def read_text(toolbox: Toolbox, execution: Execution, document: str) -> tuple[DocumentText, dict[str, Any]]:
    """The text of any document of the job's tenant, read unless it was read before, and what :func:`extract` answers.

    Raises ``NotFound`` and the reader's errors.
    """
    claim = execution.claim
    name = toolbox.documents.get(claim.tenant, document).name

    def stopped() -> bool:
        execution.tick()
        return execution.stopped()

    def read() -> bytes:
        try:
            data = toolbox.blobs.get(claim.tenant, document)
            return read_document(data, toolbox.settings, name=name, cancelled=stopped).to_json()
        except CasemillError:
            if execution.reason:
                raise Stopped from None
            raise

    step = toolbox.derive(claim, "text", VERSION, read, document=document)
    text = DocumentText.from_json(toolbox.blobs.get(claim.tenant, step["output"]))
    reading = step | {
        "document": document,
        "kind": text.kind,
        "pages": len(text.pages),
        "chars": len(text.text),
        "notes": list(text.notes),
    }
    # Noted once a text; again where a process died between the text and this.
    if not (step["reused"] and toolbox.documents.output(claim.tenant, document, "reading")):
        blob = toolbox.blobs.put(claim.tenant, "reading", json.dumps(reading).encode(), owners=(document,))
        toolbox.documents.keep_output(claim.tenant, document, "reading", blob)
    return text, reading
