"""``/v1/audit``: the audit log of a tenant, for its admins; with the scope `operator` that of any, and the system's."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.described import Described
from gateway.keyed_route import KeyedRoute
from gateway.openapi.raises import raises
from gateway.paging import Cursor
from gateway.schemas import NextCursor
from gateway.state import Admin, Shared
from services.audit import PAGE, SYSTEM

router = APIRouter(prefix="/v1/audit", tags=["administration"], route_class=KeyedRoute)


class AuditEntry(BaseModel):
    """One act. ``hash`` is of the entry's text, which holds the hash before: none can be changed unseen."""

    model_config = ConfigDict(extra="allow")

    number: int = Field(description="from 1")
    at: float | None = Field(default=None, description="seconds since the epoch")
    tenant: str | None = None
    actor: str | None = Field(default=None, description="id of the key that did it")
    action: str | None = Field(default=None, examples=["document.uploaded"])
    subject: str | None = Field(default=None, description="id of what it was done to")
    details: dict[str, str] | None = None
    previous: str | None = Field(default=None, description="hash of the entry before")
    hash: str


class AuditPage(BaseModel):
    """Entries, oldest first."""

    data: list[Annotated[dict[str, Any], Described(AuditEntry)]] = Field(description="as they are, tampered or not")
    next_cursor: NextCursor


@router.get("")
@raises("cursor_invalid", "forbidden")
def read_audit_log(
    gateway: Shared,
    principal: Admin,
    tenant: Annotated[str | None, Query(description=f"another's log, or `{SYSTEM}`; for operators")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE, description="rows of the page")] = 100,
    cursor: Cursor = None,
) -> AuditPage:
    """Who did what, in a chain of hashes; ids only. `casemill audit verify` computes the chain again."""
    if tenant not in (None, principal.tenant):
        principal.require("operator")
    page = gateway.audit.page(tenant or principal.tenant, cursor=cursor, limit=limit)
    return AuditPage(data=[entry.fields for entry in page.rows], next_cursor=page.next_cursor)
