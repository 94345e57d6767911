"""The wire types of the HTTP API that are not OpenAI's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from services.documents import Document
from services.jobs import Job, Metadata
from services.paging import Page

Callback = Annotated[
    str | None, Field(max_length=2048, description="id or exact URL of a webhook, which is told of the end")
]
ExternalId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]


class JobRequest(BaseModel):
    """A job to be done. ``model`` is a name from ``/v1/models``; for a review, ``none`` leaves generation out."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(
        examples=["review"],
        description="generate, embed, analyze, extract, review, search, compare or duplicates",
    )
    priority: str = Field(default="normal", description="critical, high, normal, low or bulk")
    device: str = Field(default="any", description="gpu, cpu or any")
    model: str | None = None
    document: str | None = Field(default=None, description="id from POST /v1/documents")
    playbook: str = Field(default="default", max_length=64, description="name or version from /v1/playbooks")
    input: dict[str, Any] = Field(default_factory=dict[str, Any], description="prompt, messages or texts, and sampling")
    matter: str | None = None
    callback: Callback = None
    external_id: ExternalId | None = Field(default=None, description="your own name of it, to find it by")
    metadata: Metadata = Field(default_factory=dict[str, str])
    not_before: datetime | None = Field(default=None, description="does not start before this time, which has a zone")
    expires_at: datetime | None = Field(default=None, description="ends as expired if it has not ended by then")


class BoundsRequest(BaseModel):
    """How many workers of a kind there may be; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    min: int | None = Field(default=None, description="the fewest, at least 1")
    max: int | None = Field(default=None, description="the most, within what the machine has room for")


class JobView(BaseModel):
    """Where a job stands."""

    id: str
    type: str
    state: str
    priority: str
    device: str
    model: str | None
    matter: str | None
    external_id: str | None
    metadata: dict[str, str]
    callback: str | None = Field(description="webhook that is told of the end, beside those that subscribe to it")
    request_id: str | None = Field(description="of the HTTP request, as it stands in the workers' logs")
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    steps: list[str]
    step: str | None = Field(description="step that waits or runs now")
    position: int | None = Field(default=None, description="jobs before this one in its backlog")
    eta_seconds: float | None = Field(default=None, description="until it starts, by measured times and live slots")
    cancelling: bool
    problem: dict[str, Any] | None = Field(description="why it failed, as an RFC 9457 problem")
    result: dict[str, Any] | None = None

    @classmethod
    def of(cls, job: Job, *, position: int | None = None, eta: float | None = None) -> JobView:
        """The view of a record."""
        return cls(
            id=job.id,
            type=job.type,
            state=job.state,
            priority=job.priority,
            device=job.device,
            model=job.model,
            matter=job.matter,
            external_id=job.external_id,
            metadata=job.metadata,
            callback=job.callback,
            request_id=job.request_id,
            attempt=job.attempt,
            created_at=moment(job.created),
            started_at=moment(job.started) if job.started else None,
            finished_at=moment(job.finished) if job.finished else None,
            steps=list(job.steps),
            step=job.current.rpartition(".")[2] if job.current and not job.state.final else None,
            position=position,
            eta_seconds=eta,
            cancelling=job.cancelling and not job.state.final,
            problem=job.problem,
        )


NextCursor = Annotated[str | None, Field(description="the `cursor` of the page that follows, null at the end")]


class JobList(BaseModel):
    """Jobs, newest first."""

    data: list[JobView]
    next_cursor: NextCursor

    @classmethod
    def of(cls, page: Page[Job]) -> JobList:
        """The view of a page."""
        return cls(data=[JobView.of(job) for job in page.rows], next_cursor=page.next_cursor)


class DocumentView(BaseModel):
    """A document that is stored. ``kind``, ``pages``, ``chars`` and ``notes`` are null until it has been read."""

    id: str
    name: str
    bytes: int
    matter: str | None
    created_at: datetime
    kind: str | None = None
    pages: int | None = None
    chars: int | None = None
    notes: list[str] | None = None

    @classmethod
    def of(cls, document: Document, reading: dict[str, Any] | None = None) -> DocumentView:
        """The view of a record and of what the reader said of it."""
        reading = reading or {}
        return cls(
            id=document.id,
            name=document.name,
            bytes=document.bytes,
            matter=document.matter,
            created_at=moment(document.created),
            kind=reading.get("kind"),
            pages=reading.get("pages"),
            chars=reading.get("chars"),
            notes=reading.get("notes"),
        )


class DocumentList(BaseModel):
    """Documents, newest first, as they were uploaded."""

    data: list[DocumentView]
    next_cursor: NextCursor


def moment(seconds: float) -> datetime:
    """Epoch seconds as a UTC time."""
    return datetime.fromtimestamp(seconds, UTC)
