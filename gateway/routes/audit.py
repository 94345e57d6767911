"""``/v1/audit``: the audit log of a tenant, for its admins; with the scope `operator` that of any, and the system's."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.state import Admin, Shared
from services.audit import PAGE, SYSTEM

router = APIRouter(prefix="/v1/audit", tags=["administration"])


class AuditPage(BaseModel):
    """Entries, oldest first; ``next`` is the ``after`` of the next page."""

    data: list[dict[str, Any]] = Field(
        description="number, at, tenant, actor, action, subject, details, previous (hash), hash"
    )
    next: int | None


@router.get("")
def read_audit(
    gateway: Shared,
    principal: Admin,
    tenant: Annotated[str | None, Query(description=f"another's log, or `{SYSTEM}`; for operators")] = None,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = 100,
) -> AuditPage:
    """Who did what, in a chain of hashes; ids only. `casemill audit verify` computes the chain again."""
    if tenant not in (None, principal.tenant):
        principal.require("operator")
    found = gateway.audit.entries(tenant or principal.tenant, after=after, limit=limit)
    return AuditPage(data=[entry.fields for entry in found], next=found[-1].number if len(found) == limit else None)
