"""``/v1/audit``: the audit log of a tenant, for its admins; with the scope `operator` that of any, and the system's."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.paging import Cursor
from gateway.schemas import NextCursor
from gateway.state import Admin, Shared
from services.audit import PAGE, SYSTEM

router = APIRouter(prefix="/v1/audit", tags=["administration"])


class AuditPage(BaseModel):
    """Entries, oldest first."""

    data: list[dict[str, Any]] = Field(
        description="number, at, tenant, actor, action, subject, details, previous (hash), hash"
    )
    next_cursor: NextCursor


@router.get("")
def read_audit(
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
