"""The wire types of the HTTP API that are not OpenAI's."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from gateway.described import Described
from gateway.input_schemas import JobInput
from gateway.set_result_schemas import JobResult
from services.documents import Document
from services.jobs import NAME_PATTERN, Device, Job, JobType, Metadata, Priority, State
from services.json_model import JsonModel
from services.paging import Page


def named(names: Iterable[str], description: str | None = None) -> Any:
    """A string that is one of these, for the description: what it is otherwise is refused with the names."""
    return Field(description=description, json_schema_extra={"enum": [str(name) for name in names]})


TypeName = Annotated[str, named(JobType)]
PriorityName = Annotated[str, named(Priority, "most urgent first: critical, high, normal, low, bulk")]
DeviceName = Annotated[str, named(Device, "class of worker that may run it")]
StateName = Annotated[str, named(State, "the last four are final")]
MatterName = Annotated[
    str,
    Field(json_schema_extra={"pattern": f"^{NAME_PATTERN}$"}, description="the client's matter"),
]
PlaybookName = Annotated[str, Field(max_length=64, description="name or version from /v1/playbooks")]
Callback = Annotated[
    str | None, Field(max_length=2048, description="id or exact URL of a webhook, which is told of the end")
]
ExternalId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
NotBefore = Annotated[datetime | None, Field(description="does not start before this time, which has a zone")]
ExpiresAt = Annotated[datetime | None, Field(description="ends as expired if it has not ended by then")]


class Problem(BaseModel):
    """Why something failed (RFC 9457): ``code`` is for programs and stable, ``detail`` tells a person what to do."""

    type: str = Field(description="urn:casemill:problem: and the code")
    title: str
    status: int
    code: str
    detail: str
    retryable: bool = Field(description="the same request may succeed later")
    retry_after: float | None = Field(default=None, description="seconds until then, where that is known")


JobProblem = Annotated[dict[str, Any] | None, Described(Problem | None)]


class JobRequest(JsonModel):
    """A job to be done. ``model`` is a name from ``/v1/models``; for a review, ``none`` leaves generation out."""

    type: TypeName
    priority: PriorityName = "normal"
    device: DeviceName = "any"
    model: str | None = None
    document: str | None = Field(default=None, description="id from POST /v1/documents")
    playbook: PlaybookName = "default"
    input: Annotated[dict[str, Any], Described(JobInput)] = Field(
        default_factory=dict[str, Any],
        description="of a job without `document`: what to generate, embed, search, compare or look through",
    )
    matter: MatterName | None = None
    callback: Callback = None
    external_id: ExternalId | None = Field(default=None, description="your own name of it, to find it by")
    metadata: Metadata = Field(default_factory=dict[str, str])
    not_before: NotBefore = None
    expires_at: ExpiresAt = None


class JobView(BaseModel):
    """Where a job stands."""

    id: str
    type: TypeName
    state: StateName
    priority: PriorityName
    device: DeviceName
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
    problem: JobProblem = Field(description="why it failed")
    result: Annotated[dict[str, Any] | None, Described(JobResult | None)] = Field(
        default=None, description="by the job's type; of a job that has succeeded, asked for by its id or waited for"
    )

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


class PageSpan(BaseModel):
    """A page, by its number from 1 and its offsets."""

    number: int
    start: int
    end: int


class ParagraphSpan(BaseModel):
    """A paragraph by its offsets, without the white space around it."""

    start: int
    end: int


class DocumentTextView(BaseModel):
    """The text of a document. Offsets count Unicode code points from 0, ``end`` exclusive."""

    kind: str
    text: str
    pages: list[PageSpan]
    paragraphs: list[ParagraphSpan]
    notes: list[str]
    labels: list[str] = Field(default=[], description="of a clause bank: the ids of its paragraphs, in their order")
    unread: list[int] = Field(default=[], description="numbers of scanned pages whose text is missing")


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
