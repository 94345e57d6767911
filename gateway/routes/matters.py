"""``/v1/matters``: erase a matter."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gateway.keyed_route import KeyedRoute
from gateway.openapi.raises import raises
from gateway.schemas import MatterName
from gateway.state import Shared, Submitter
from services.errors import unknown
from services.jobs import check_name

router = APIRouter(prefix="/v1/matters", tags=["documents"], route_class=KeyedRoute)


class ErasureView(BaseModel):
    """What an erasure removed."""

    matter: str
    documents: int = Field(default=0, description="documents with all that was derived from them")
    jobs: int = Field(default=0, description="jobs whose input, events and results are gone; those that ran have ended")
    schedules: int = 0
    blobs: int = Field(default=0, description="files of documents, texts, embeddings and results")


@router.delete("/{matter}")
@raises("name_invalid", "matter_unknown", "erasure_goes_on", "storage_unavailable", "audit_busy")
def delete_matter(matter: MatterName, gateway: Shared, principal: Submitter) -> ErasureView:
    """Erase a matter: its documents, jobs, runs and schedules with everything derived from them.

    It can be read nowhere when this answers. A repeat that finds nothing more is answered as the first was, for 24
    hours: with what that has removed. After that, and where there never was anything of the matter, it is not found.
    """
    check_name(matter, "matter")
    counts = gateway.erasures.matter(principal.tenant, matter, actor=principal.key_id)
    if not any(counts.values()):
        raise unknown("matter", matter)
    return ErasureView(matter=matter, **counts)
