"""``/v1/playbooks``: a firm's own playbooks: upload, validate, test, list, compare, remove.

Uploading takes the scope ``submit``, not ``admin``: a playbook is work like any, and administers nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from gateway.accepting import ACCEPTED, Acceptor
from gateway.keyed_route import KeyedRoute
from gateway.openapi.answers import answer
from gateway.openapi.raises import raises
from gateway.paging import Cursor, Limit
from gateway.playbook_schemas import (
    PlaybookCheck,
    PlaybookDiff,
    PlaybookList,
    PlaybookTest,
    PlaybookText,
    PlaybookUpload,
    PlaybookVersion,
    PlaybookView,
)
from gateway.schemas import JobRequest, JobView
from gateway.state import MatterReader, Scoped, Shared, Submitter
from gateway.submissions import ANY_PLAYBOOK
from services.errors import InvalidRequest
from services.paging import Place, page_of
from services.playbook_diff import diff
from services.playbook_store import StoredVersion
from services.playbooks import INCLUDED, load_playbook

router = APIRouter(prefix="/v1/playbooks", tags=["playbooks"], route_class=KeyedRoute)


_YAML: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"application/yaml": {"schema": {"type": "string"}}}}
}


@router.get("")
@raises("cursor_invalid")
def list_playbooks(gateway: Shared, principal: MatterReader, limit: Limit = 50, cursor: Cursor = None) -> PlaybookList:
    """The playbooks of the tenant, first those that come along."""
    page = page_of("playbooks", gateway.playbooks.list(principal.tenant), _place, cursor=cursor, limit=limit)
    return PlaybookList(data=[PlaybookView.of(stored) for stored in page.rows], next_cursor=page.next_cursor)


@router.post(
    "",
    status_code=201,
    openapi_extra=_YAML,
    responses={
        201: answer("Location", description="The playbook is kept"),
        200: answer("Location", model=PlaybookUpload, description="The same content was there already"),
    },
)
@raises("playbook_invalid", "playbook_reserved", "storage_unavailable", "blob_missing", "audit_busy")
async def upload_playbook(
    request: Request, response: Response, gateway: Shared, principal: Submitter
) -> PlaybookUpload:
    """Keep the YAML of the body as the latest version of the playbook that it names; 200 when it was there already.

    Jobs that are queued keep the version that they were given. Anything wrong is refused with line and reason.
    """
    data = await request.body()
    stored, created = await run_in_threadpool(gateway.playbooks.upload, principal.tenant, data)
    playbook = await run_in_threadpool(gateway.playbooks.read, principal.tenant, stored.version)
    if created:
        note = partial(gateway.audit.note, version=stored.version)
        await run_in_threadpool(note, principal.tenant, principal.key_id, "playbook.uploaded", stored.name)
    response.headers["Location"] = f"/v1/playbooks/{stored.name}"
    response.status_code = 201 if created else 200
    return PlaybookUpload(**PlaybookCheck.of(playbook).model_dump(), created=created)


@router.post("/validate", dependencies=[Depends(Scoped("read", of_any_matter=True))], openapi_extra=_YAML)
@raises("playbook_invalid")
async def validate_playbook(request: Request) -> PlaybookCheck:
    """Check the YAML of the body and keep nothing: how many terms it has, and what is odd about it."""
    playbook = await run_in_threadpool(load_playbook, await request.body())
    return PlaybookCheck.of(playbook)


@router.post("/test", status_code=202, response_model=JobView, responses=ACCEPTED)
@raises(
    *ANY_PLAYBOOK,
    "playbook_ambiguous",
    "playbook_invalid",
    "document_unknown",
    "priority_unknown",
    "priority_forbidden",
    "matter_forbidden",
)
async def test_playbook(body: PlaybookTest, accept: Acceptor) -> Response:
    """Run a playbook over a document: a job of type analyze, whose result has the findings, rules and risk."""
    if body.playbook is not None and body.text is not None:
        raise InvalidRequest("give `playbook` or `text`, not both", code="playbook_ambiguous")
    job = JobRequest(
        type="analyze", document=body.document, playbook=body.playbook or INCLUDED[0], priority=body.priority
    )
    return await accept(job, playbook_text=body.text)


@router.get("/{playbook}")
@raises("playbook_unknown", "blob_missing")
def get_playbook(playbook: str, gateway: Shared, principal: MatterReader) -> PlaybookText:
    """A playbook by its name, or one version of it by the first 8 digits or more, with its text."""
    stored = gateway.playbooks.find(principal.tenant, playbook)
    return PlaybookText(
        **PlaybookView.of(stored).model_dump(),
        text=gateway.playbooks.text(principal.tenant, stored),
        versions=[PlaybookVersion.of(item) for item in gateway.playbooks.versions(principal.tenant, stored.name)],
    )


@router.get("/{playbook}/diff")
@raises("playbook_unknown", "playbook_version_first", "blob_missing")
def diff_playbook(
    playbook: str,
    gateway: Shared,
    principal: MatterReader,
    old: Annotated[str | None, Query(alias="from", description="name or version; the version before")] = None,
    new: Annotated[str | None, Query(alias="to", description="name or version; the playbook's latest")] = None,
) -> PlaybookDiff:
    """What changed from one playbook or version to another."""
    store, tenant = gateway.playbooks, principal.tenant
    after = store.find(tenant, new or playbook)
    if old is None:
        versions = store.versions(tenant, after.name)
        place = [item.version for item in versions].index(after.version) + 1
        if place == len(versions):
            raise InvalidRequest("there is no version before; name one by `from`", code="playbook_version_first")
        before = versions[place]
    else:
        before = store.find(tenant, old)
    texts = (load_playbook(store.text(tenant, stored)) for stored in (before, after))
    return PlaybookDiff(**{"from": PlaybookView.of(before), "to": PlaybookView.of(after)}, **diff(*texts))


@router.delete("/{playbook}", status_code=204, response_class=Response)
@raises("playbook_unknown", "playbook_reserved", "audit_busy")
def remove_playbook(playbook: str, gateway: Shared, principal: Submitter) -> None:
    """Take a playbook's name away; jobs, schedules and results that name its versions keep them."""
    gateway.playbooks.find(principal.tenant, playbook)
    gateway.audit.note(principal.tenant, principal.key_id, "playbook.removed", playbook)
    gateway.playbooks.remove(principal.tenant, playbook)


def _place(stored: StoredVersion) -> Place:
    """In the order of :meth:`PlaybookStore.list`."""
    return Place(INCLUDED.index(stored.name) if stored.name in INCLUDED else len(INCLUDED), stored.name)
