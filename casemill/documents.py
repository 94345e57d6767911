"""Documents: upload, look, read the text, erase."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from casemill.calls import json_of, pages, view_of
from casemill.models import Document
from casemill.operations import D, Resource, iteration, operation
from casemill.steps import Emitting, Flow, path_of, request

PATH = path_of("documents")


class Documents(Resource[D]):
    """``client.documents``."""

    @operation
    def upload(
        self,
        source: str | os.PathLike[str] | bytes,
        /,
        *,
        name: str | None = None,
        matter: str | None = None,
        read: bool = True,
    ) -> Flow[Document]:
        """Store a document: a file by its path, or its bytes.

        ``name`` is what the document is called, for a file the file's own name. The answer waits for the document to
        be read, 20 seconds at most, and has ``pages`` then; ``read=False`` leaves that to the job that it is for.

        The same bytes in the same matter are the same document, so uploading twice stores once. A document that nobody
        can read raises ``Invalid`` with a code that says why, such as ``document_type_unknown``, and is not kept.
        """
        if isinstance(source, bytes):
            data = source
        else:
            file = Path(source)
            data, name = file.read_bytes(), name or file.name
        params = {"name": name, "matter": matter, "read": read}
        asked = request("POST", PATH, params=params, content=data, repeatable=True)
        return (yield from view_of(Document, asked, self.retry.begin()))

    @operation
    def get(self, document: str, /) -> Flow[Document]:
        """What is known of a document, by its id. Raises ``NotFound``."""
        asked = request("GET", path_of("documents", document))
        return (yield from view_of(Document, asked, self.retry.begin()))

    @operation
    def text(self, document: str, /) -> Flow[dict[str, Any]]:
        """The extracted text with its pages and paragraphs, whose offsets count Unicode code points.

        Raises ``Conflict`` (``text_missing``) where the document has not been read yet.
        """
        asked = request("GET", path_of("documents", document, "text"))
        return (yield from json_of(asked, self.retry.begin()))

    @operation
    def erase(self, document: str, /) -> Flow[None]:
        """Erase a document with everything derived from it; it can be read nowhere when this answers.

        Jobs that run on it end and deliver nothing. Safe to try again for a day. Raises ``NotFound`` for what never was
        there, and ``Unavailable`` (``erasure_goes_on``) for what takes longer: it is recorded and will be carried out.
        """
        yield from json_of(request("DELETE", path_of("documents", document)), self.retry.begin())

    @iteration
    def list(self, *, matter: str | None = None) -> Emitting[Document, None]:
        """The documents, newest first, without what was read of them; ``matter`` keeps those of one."""
        yield from pages(PATH, {"matter": matter}, Document, self.retry)
