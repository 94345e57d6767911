"""What jobs over several documents may ask for: searches, comparisons of two versions, near-duplicates, counts."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from gateway.input_schemas import CompareInput, CountInput, DuplicatesInput, SearchInput
from gateway.matters import visible_document
from gateway.openapi.raises import raises
from gateway.schemas import (
    Callback,
    DeviceName,
    ExpiresAt,
    ExternalId,
    JobRequest,
    MatterName,
    NotBefore,
    PlaybookName,
    PriorityName,
)
from gateway.state import Gateway
from services.errors import InvalidRequest, NotFound
from services.job_inputs import checked_input
from services.jobs import JobType, Metadata, check_name
from services.json_model import JsonModel
from services.principal import Principal


class _SetRequest(JsonModel):
    """What every job can be told."""

    matter: MatterName | None = None
    external_id: ExternalId | None = Field(default=None, description="your own name of it, to find it by")
    priority: PriorityName = "normal"
    metadata: Metadata = Field(default_factory=dict[str, str])
    callback: Callback = None
    not_before: NotBefore = None
    expires_at: ExpiresAt = None

    def _job(self, job_type: JobType, asked: dict[str, Any], **more: Any) -> JobRequest:
        """A job with what of ``asked`` is given as its input."""
        common = {name: getattr(self, name) for name in _SetRequest.model_fields}
        return JobRequest(
            type=job_type, input={name: value for name, value in asked.items() if value is not None}, **common, **more
        )


class SearchRequest(_SetRequest):
    """A search; ``query`` or ``queries``, in ``documents`` or in a ``matter``."""

    query: str | None = None
    queries: list[str] | None = None
    documents: list[str] | None = Field(default=None, description="ids from POST /v1/documents, clause banks too")
    k: int = Field(default=10, description="hits of each query, 1 to 1000")
    mode: str = Field(default="hybrid", description="hybrid or similar")
    model: str | None = Field(default=None, description="embedding model from /v1/models")
    device: DeviceName = "any"

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
        return self._job(JobType.SEARCH, asked, model=self.model, device=self.device)


class CompareRequest(_SetRequest):
    """A comparison of two versions of a document."""

    before: str = Field(description="id of the earlier version")
    after: str = Field(description="id of the later version")
    device: DeviceName = "any"

    def job(self) -> JobRequest:
        """The job that does it."""
        return self._job(JobType.COMPARE, {"before": self.before, "after": self.after}, device=self.device)


class DuplicatesRequest(_SetRequest):
    """Near-duplicates to be found among documents: those listed, or all that the matter has when the job runs."""

    documents: list[str] | None = Field(default=None, description="ids from POST /v1/documents, at least two")
    threshold: float = Field(default=0.8, description="least Jaccard similarity of runs of five words, 0.5 to 1")
    ignore_numbers: bool = Field(default=False, description="leave out words with digits: dates, amounts, numbers")

    def job(self) -> JobRequest:
        """The job that does it."""
        asked = {
            "documents": self.documents,
            "threshold": self.threshold,
            "ignore_numbers": self.ignore_numbers,
        }
        return self._job(JobType.DUPLICATES, asked)


class CountRequest(_SetRequest):
    """Findings to be counted in documents: in those listed, or in all that the matter has when the job runs."""

    documents: list[str] | None = Field(default=None, description="ids from POST /v1/documents")
    playbook: PlaybookName = "default"
    device: DeviceName = "any"

    def job(self) -> JobRequest:
        """The job that does it."""
        return self._job(JobType.COUNT, {"documents": self.documents}, playbook=self.playbook, device=self.device)


_INPUTS: dict[JobType, type[BaseModel]] = {
    JobType.SEARCH: SearchInput,
    JobType.COMPARE: CompareInput,
    JobType.DUPLICATES: DuplicatesInput,
    JobType.COUNT: CountInput,
}
SET_TYPES = tuple(_INPUTS)
"""Types of jobs over several documents."""


@raises("matter_unknown")
def check_matter(gateway: Gateway, principal: Principal, matter: str) -> None:
    """Raise code ``matter_unknown`` where a matter has no documents."""
    if not principal.sees(matter) or not gateway.documents.in_matter(principal.tenant, matter):
        raise NotFound(f"the matter {matter!r} has no documents", code="matter_unknown")


@raises(visible_document, check_matter, "input_invalid", "text_invalid", "documents_required", "name_invalid")
def set_job(gateway: Gateway, principal: Principal, request: JobRequest, job_type: JobType) -> dict[str, Any]:
    """The checked input of a job of :data:`SET_TYPES`, whose documents are all the tenant's.

    Raises ``InvalidRequest`` ``input_invalid``, ``text_invalid`` or ``documents_required``, ``NotFound``
    ``document_unknown`` or ``matter_unknown``.
    """
    if request.document is not None:
        raise InvalidRequest(f"{job_type} names its documents in `input`, not in `document`", code="input_invalid")
    body = checked_input(_INPUTS[job_type], request.input)
    if "documents" in body:
        body["documents"] = list(dict.fromkeys(body["documents"]))
    elif job_type in (JobType.DUPLICATES, JobType.COUNT):
        if request.matter is None:
            raise InvalidRequest("name `documents` or a `matter`", code="documents_required")
        body["matter"] = request.matter
    named = [body["before"], body["after"]] if job_type is JobType.COMPARE else body.get("documents", ())
    for document in dict.fromkeys(named):
        visible_document(gateway, principal, document)
    if matter := body.get("matter"):
        check_name(matter, "matter")
        check_matter(gateway, principal, matter)
    return body
