"""``/v1/documents``: upload, look, read the text, delete."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import nullcontext, suppress
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from gateway.conditional import TAGGED, Conditional
from gateway.following import result_of, wait_for_end
from gateway.keyed_route import KeyedRoute
from gateway.openapi.answers import answer
from gateway.openapi.job_codes import READING
from gateway.openapi.raises import raises
from gateway.paging import Cursor, Limit, OfMatter
from gateway.schemas import DocumentList, DocumentTextView, DocumentView, MatterName
from gateway.state import Gateway, MatterReader, MatterSubmitter, Reader, Shared, Submitter
from services.documents import Document
from services.errors import CasemillError, InvalidRequest, NotFound, PayloadTooLarge, Transient
from services.jobs import JobType, Priority, State, Submission, check_name
from services.principal import Principal

router = APIRouter(prefix="/v1/documents", tags=["documents"], route_class=KeyedRoute)

# An upload waits this long for the reader, so that a document nobody can read is refused in the answer.
READ_SECONDS = 20.0
_BYTES: Final = {"type": "string", "format": "binary"}
_UPLOAD: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": _BYTES},
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": _BYTES}},
            },
        },
    }
}


@raises("waiting_full")
async def _reads(
    gateway: Shared,
    principal: MatterSubmitter,
    read: Annotated[bool, Query(description="read it now, and refuse it if that cannot be done")] = True,
) -> AsyncGenerator[bool]:
    with gateway.waiting.one(principal.tenant) if read else nullcontext():
        yield read


Reads = Annotated[bool, Depends(_reads, scope="request")]
"""Whether the answer waits for the document to be read."""


@router.post(
    "",
    status_code=201,
    openapi_extra=_UPLOAD,
    responses={
        201: answer("Location", description="The document is stored, and has been read if that was asked for"),
        202: answer("Location", model=DocumentView, description="The document is stored; reading it goes on"),
    },
)
@raises(
    wait_for_end,
    result_of,
    *READING,
    "document_required",
    "document_too_large",
    "storage_full",
    "storage_unavailable",
    "name_invalid",
    "matter_forbidden",
    "backlog_full",
    "document_unknown",
    "erasing",
    "audit_busy",
)
async def upload_document(
    request: Request,
    response: Response,
    gateway: Shared,
    principal: MatterSubmitter,
    read: Reads,
    name: Annotated[str | None, Query(max_length=255, description="its file's name; of a form, the part's")] = None,
    matter: MatterName | None = None,
) -> DocumentView:
    """Store a document: its bytes as the body, or a multipart form with one file.

    The answer waits for the document to be read, 20 seconds at most; 201 with pages, 202 when reading goes on. A
    document that cannot be read is refused with the reason and not kept. With `read=false` the reading is left to the
    job or run that the document is for, which then fails with the reason.
    """
    if matter is not None:
        check_name(matter, "matter")
    matter = principal.matter_for(matter)
    data, filename = await _body(request, gateway.settings.max_upload_bytes)
    document = await run_in_threadpool(
        gateway.documents.add,
        principal.tenant,
        data,
        name=name or filename or "document",
        matter=matter,
        owner=principal.key_id,
        owner_limit=principal.limits.stored_bytes,
    )
    note = partial(gateway.audit.note, matter=matter or "")
    await run_in_threadpool(note, principal.tenant, principal.key_id, "document.uploaded", document.id)
    response.headers["Location"] = f"/v1/documents/{document.id}"
    if not read:
        known = await run_in_threadpool(_known_reading, gateway, principal.tenant, document.id)
        return DocumentView.of(document, known)
    reading = await _read(gateway, principal, document, request.state.request_id)
    if reading is None:
        response.status_code = 202
    return DocumentView.of(document, reading)


@router.get("")
@raises("cursor_invalid")
def list_documents(
    gateway: Shared, principal: MatterReader, matter: OfMatter = None, limit: Limit = 50, cursor: Cursor = None
) -> DocumentList:
    """The documents of the tenant, or of a matter, newest first, without what was read of them."""
    page = gateway.documents.list(
        principal.tenant, matter=matter, matters=principal.matters, cursor=cursor, limit=limit
    )
    return DocumentList(data=[DocumentView.of(document) for document in page.rows], next_cursor=page.next_cursor)


@router.get("/{document_id}", response_model=DocumentView, responses=TAGGED)
@raises("document_unknown", "blob_missing")
def get_document(document_id: str, condition: Conditional, gateway: Shared, principal: Reader) -> Response:
    """What is known of a document."""
    document = gateway.documents.get(principal.tenant, document_id)
    return condition.answer(DocumentView.of(document, _known_reading(gateway, principal.tenant, document_id)))


@router.get("/{document_id}/text", response_model=DocumentTextView)
@raises("document_unknown", "text_missing", "blob_missing")
def get_document_text(document_id: str, gateway: Shared, principal: Reader) -> Response:
    """The extracted text with its pages and paragraphs; offsets count Unicode code points."""
    gateway.documents.get(principal.tenant, document_id)
    reading = _known_reading(gateway, principal.tenant, document_id)
    if reading is None:
        raise InvalidRequest(
            "the document has not been read yet; submit an extract job", code="text_missing", status=409
        )
    return Response(gateway.blobs.get(principal.tenant, reading["output"]), media_type="application/json")


@router.delete("/{document_id}", status_code=204, response_class=Response)
@raises("document_unknown", "erasure_goes_on", "storage_unavailable", "audit_busy")
def delete_document(document_id: str, gateway: Shared, principal: Submitter) -> None:
    """Erase a document with everything derived from it; jobs that run on it end and deliver nothing.

    It can be read nowhere when this answers. The caretaker then has the Redis server rewrite its append-only file and
    notes the end in the audit log. A repeat is answered as the first was, for 24 hours; after that the document is not
    found.
    """
    gateway.erasures.document(principal.tenant, document_id, actor=principal.key_id)


async def _body(request: Request, limit: int) -> tuple[bytes, str | None]:
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=4) as form:
            files = [value for value in form.values() if isinstance(value, UploadFile)]
            if len(files) != 1:
                raise InvalidRequest("the form needs exactly one file", code="document_required")
            data, filename = await files[0].read(), files[0].filename
    else:
        data, filename = await request.body(), None
    if len(data) > limit:
        raise PayloadTooLarge(f"the document is larger than {limit} bytes", code="document_too_large")
    return data, filename


async def _read(gateway: Gateway, principal: Principal, document: Document, request_id: str) -> dict[str, Any] | None:
    known = await run_in_threadpool(_known_reading, gateway, principal.tenant, document.id)
    if known is not None:
        return known
    submission = Submission(
        tenant=principal.tenant,
        type=JobType.EXTRACT,
        input={"document": document.id, "name": document.name},
        document=document.id,
        priority=max(Priority.HIGH, principal.ceiling, key=lambda priority: priority.rank),
        matter=document.matter,
        request_id=request_id,
    )
    submitted, _ = await run_in_threadpool(gateway.lifecycle.submit, submission)
    job = await wait_for_end(gateway, principal.tenant, submitted.id, READ_SECONDS)
    if job is None:
        return None
    try:
        return await run_in_threadpool(result_of, gateway, job)
    except CasemillError as error:
        if job.state is State.FAILED and not isinstance(error, Transient) and error.http_status < 500:
            note = partial(gateway.audit.note, code=error.code)
            await run_in_threadpool(note, principal.tenant, principal.key_id, "document.refused", document.id)
            with suppress(NotFound):  # another upload of the same bytes was refused first
                await run_in_threadpool(gateway.documents.delete, principal.tenant, document.id)
        raise


def _known_reading(gateway: Gateway, tenant: str, document: str) -> dict[str, Any] | None:
    blob = gateway.documents.output(tenant, document, "reading")
    return json.loads(gateway.blobs.get(tenant, blob)) if blob else None
