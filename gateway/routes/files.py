"""OpenAI's ``/v1/files``: the files of batches, streamed to the disk and from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from gateway.batch_schemas import LASTS, After, ExpiresAfter, FileList, FileRemoved, FileView
from gateway.keyed_route import KeyedRoute
from gateway.openapi.answers import text
from gateway.openapi.raises import raises
from gateway.state import Reader, Shared, Submitter
from services.blobs import BLOCK_BYTES
from services.errors import InvalidRequest, PayloadTooLarge, Unavailable
from services.openai_requests import parsed
from services.storage_room import Storer

router = APIRouter(prefix="/v1/files", tags=["openai"], route_class=KeyedRoute)

_FORM: dict[str, Any] = {
    "type": "object",
    "dependentRequired": {
        "expires_after[anchor]": ["expires_after[seconds]"],
        "expires_after[seconds]": ["expires_after[anchor]"],
    },
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"const": "batch"},
        **{f"expires_after[{name}]": one for name, one in ExpiresAfter.model_json_schema()["properties"].items()},
    },
}


@router.post(
    "", openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}
)
@raises("file_required", "purpose_unknown", "file_too_large", "storage_full", "storage_unavailable", "audit_busy")
async def upload_file(request: Request, gateway: Shared, principal: Submitter) -> FileView:
    """Store a file of requests: lines of JSON, 200 MB at most. It expires after 30 days or ``expires_after``."""
    try:
        async with request.form(max_files=1, max_fields=8) as form:
            upload, lasts = _upload(form, gateway.settings.max_file_bytes)
            file = await run_in_threadpool(
                gateway.files.add,
                principal.tenant,
                _blocks(upload.file),
                size=upload.size or 0,
                filename=upload.filename or "file",
                purpose="batch",
                storer=Storer(principal.key_id, principal.limits.stored_bytes),
                lasts=lasts,
            )
    except OSError as error:  # of the part that waits on the disk until all of it has come
        detail = f"the upload cannot be written ({error.strerror}); free space for temporary files"
        raise Unavailable(detail, code="storage_unavailable") from error
    await run_in_threadpool(gateway.audit.note, principal.tenant, principal.key_id, "file.uploaded", file.id)
    return FileView.of(file)


@router.get("")
@raises("after_unknown")
def list_files(
    gateway: Shared,
    principal: Reader,
    purpose: Annotated[str | None, Query(description="batch or batch_output")] = None,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="files of the page")] = 10_000,
    order: Annotated[Literal["asc", "desc"], Query(description="by the time of their upload")] = "desc",
) -> FileList:
    """Files by the time of their upload, those of batches' results too (purpose ``batch_output``)."""
    files, more = gateway.files.list(principal.tenant, purpose=purpose, after=after, limit=limit, order=order)
    return FileList.of([FileView.of(file) for file in files], more)


@router.get("/{file_id}")
@raises("file_unknown")
def get_file(file_id: str, gateway: Shared, principal: Reader) -> FileView:
    """What is known of a file."""
    return FileView.of(gateway.files.get(principal.tenant, file_id))


@router.get(
    "/{file_id}/content",
    response_class=StreamingResponse,
    responses={200: text("application/jsonl", "The bytes, as they were uploaded or written", "Cache-Control")},
)
@raises("file_unknown", "blob_missing")
def read_file(file_id: str, gateway: Shared, principal: Reader) -> StreamingResponse:
    """The bytes of a file."""
    file = gateway.files.get(principal.tenant, file_id)
    headers = {"Content-Length": str(file.bytes), "Cache-Control": "no-store"}
    blocks = gateway.files.blocks(principal.tenant, file_id)
    return StreamingResponse(blocks, media_type="application/jsonl", headers=headers)


@router.delete("/{file_id}")
@raises("file_unknown", "file_in_use", "audit_busy")
def delete_file(file_id: str, gateway: Shared, principal: Submitter) -> FileRemoved:
    """Remove a file and its bytes; one that a batch reads is refused until the batch has ended."""
    gateway.files.remove(principal.tenant, file_id)
    gateway.audit.note(principal.tenant, principal.key_id, "file.erased", file_id)
    return FileRemoved(id=file_id)


def _upload(form: FormData, most: int) -> tuple[UploadFile, float]:
    """The file of a form and for how many seconds it is kept."""
    upload, purpose = form.get("file"), form.get("purpose")
    if not isinstance(upload, UploadFile):
        raise InvalidRequest("the form needs a `file`", code="file_required")
    if purpose != "batch":
        raise InvalidRequest("the `purpose` of a file is `batch`; others are not supported", code="purpose_unknown")
    if (upload.size or 0) > most:
        raise PayloadTooLarge(f"the file is larger than {most} bytes", code="file_too_large")
    wished: dict[str, Any] = {
        name: form[f"expires_after[{name}]"] for name in ("anchor", "seconds") if f"expires_after[{name}]" in form
    }
    return upload, float(parsed(ExpiresAfter, wished).seconds) if wished else LASTS


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with suppress(ValueError):  # closed with the form, where the request was given up
        file.seek(0)
    while block := file.read(BLOCK_BYTES):
        yield block
