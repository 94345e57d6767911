"""What jobs over several documents may ask for: a search through them or a matter, a comparison of two versions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.job_inputs import checked_input
from gateway.schemas import JobRequest, Metadata
from gateway.state import Gateway
from services.access import Principal
from services.errors import InvalidRequest, NotFound
from services.jobs import JobType, check_name

Query = Annotated[str, Field(min_length=1, max_length=8192, pattern=r"\S")]


class SearchInput(BaseModel):
    """Queries, and where they are searched: in documents, clause banks among them, or in all of a matter."""

    model_config = ConfigDict(extra="forbid")

    queries: list[Query] = Field(min_length=1, max_length=64)
    documents: list[str] | None = Field(default=None, min_length=1, max_length=10_000)
    matter: str | None = None
    k: int = Field(default=10, ge=1, le=1000, description="hits of each query")
    mode: Literal["hybrid", "similar"] = Field(
        default="hybrid", description="similar: by embeddings alone, exactly; hybrid: with the words that they share"
    )

    @model_validator(mode="after")
    def _placed(self) -> SearchInput:
        if (self.documents is None) == (self.matter is None):
            raise ValueError("give either documents or a matter")
        return self


class CompareInput(BaseModel):
    """Two versions of a document, by their ids."""

    model_config = ConfigDict(extra="forbid")

    before: str
    after: str


class _SetRequest(BaseModel):
    """What every job can be told."""

    model_config = ConfigDict(extra="forbid")

    priority: str = Field(default="normal", description="critical, high, normal, low or bulk")
    device: str = Field(default="any", description="gpu, cpu or any")
    metadata: Metadata = Field(default_factory=dict[str, str])


class SearchRequest(_SetRequest):
    """A search; ``query`` or ``queries``, in ``documents`` or in a ``matter``."""

    query: str | None = None
    queries: list[str] | None = None
    documents: list[str] | None = Field(default=None, description="ids from POST /v1/documents, clause banks too")
    matter: str | None = None
    k: int = Field(default=10, description="hits of each query, 1 to 1000")
    mode: str = Field(default="hybrid", description="hybrid or similar")
    model: str | None = Field(default=None, description="embedding model from /v1/models")

    def job(self) -> JobRequest:
        """The job that does it; raises ``InvalidRequest`` code ``input_invalid``."""
        if (self.query is None) == (self.queries is None):
            raise InvalidRequest("give either query or queries", code="input_invalid")
        asked = {
            "queries": self.queries if self.query is None else [self.query],
            "documents": self.documents,
            "matter": self.matter,
            "k": self.k,
            "mode": self.mode,
        }
        return JobRequest(
            type=JobType.SEARCH,
            priority=self.priority,
            device=self.device,
            model=self.model,
            matter=self.matter,
            metadata=self.metadata,
            input={name: value for name, value in asked.items() if value is not None},
        )


class CompareRequest(_SetRequest):
    """A comparison of two versions of a document."""

    before: str = Field(description="id of the earlier version")
    after: str = Field(description="id of the later version")
    matter: str | None = None

    def job(self) -> JobRequest:
        """The job that does it."""
        return JobRequest(
            type=JobType.COMPARE,
            priority=self.priority,
            device=self.device,
            matter=self.matter,
            metadata=self.metadata,
            input={"before": self.before, "after": self.after},
        )


def set_job(gateway: Gateway, principal: Principal, request: JobRequest, job_type: JobType) -> dict[str, Any]:
    """The checked input of a search or a comparison, whose documents are all the tenant's.

    Raises ``InvalidRequest`` ``input_invalid`` or ``text_invalid``, ``NotFound`` ``document_unknown`` or
    ``matter_unknown``.
    """
    if request.document is not None:
        raise InvalidRequest(f"{job_type} names its documents in `input`, not in `document`", code="input_invalid")
    body = checked_input(SearchInput if job_type is JobType.SEARCH else CompareInput, request.input)
    named = [body["before"], body["after"]] if job_type is JobType.COMPARE else body.get("documents", ())
    for document in dict.fromkeys(named):
        gateway.documents.get(principal.tenant, document)
    if matter := body.get("matter"):
        check_name(matter, "matter")
        if not gateway.documents.in_matter(principal.tenant, matter):
            raise NotFound(f"the matter {matter!r} has no documents", code="matter_unknown")
    return body
