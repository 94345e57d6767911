"""What stands in the ``data`` of server-sent events, by their names, for the description; others write it."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, Field

from gateway.described import Sparse
from gateway.openapi.answers import Events
from gateway.schemas import Problem, TypeName


class Told(Sparse):
    """What every event of a job or run has."""

    t: str = Field(description="seconds since the epoch")


class WaitingEvent(Told):
    """A job is in its backlog (``queued``), or waits for its steps or documents (``waiting``)."""

    state: Literal["queued", "waiting"]
    reason: Literal["due", "replay", "retry", "released", "worker_lost"] | None = Field(
        default=None, description="of one that was accepted before: why it waits again"
    )
    attempt: int | None = Field(default=None, description="with `worker_lost`: the attempt that was lost")


class ScheduledEvent(Told):
    """A job or run waits for its time."""

    state: Literal["scheduled"]
    due: str = Field(description="when it may start, in seconds since the epoch")


class RetriedEvent(Told):
    """An attempt failed for a passing reason and is made again."""

    state: Literal["scheduled"]
    attempt: int
    problem: Problem


class RunningEvent(Told):
    """A worker has begun an attempt."""

    state: Literal["running"]
    attempt: int
    worker: str


class EndedEvent(Told):
    """The end, unless it failed."""

    state: Literal["succeeded", "cancelled", "expired"]
    problem: Problem | None = Field(default=None, description="where what it was about was erased")


class FailedEvent(Told):
    """It has failed."""

    state: Literal["failed"]
    problem: Problem


class StepEvent(Told):
    """A state of a step of the job; members as in the job's own states."""

    step: str
    state: Literal["queued", "scheduled", "running", "succeeded", "failed", "cancelled", "expired"]
    reason: Literal["due", "replay", "released", "worker_lost"] | None = None
    attempt: int | None = None
    worker: str | None = None
    problem: Problem | None = None


class TokenEvent(BaseModel):
    """More of the generated text."""

    text: str


class SearchProgress(BaseModel):
    """A search has read a document that was not read before."""

    step: Literal["embed"]
    done: int = Field(description="documents so far")
    of: int = Field(description="documents in all")


class TermsProgress(BaseModel):
    """A review asks the model for a term."""

    step: Literal["terms"]
    term: str


class CountProgress(BaseModel):
    """A count has read more of the documents."""

    documents: int = Field(description="documents so far")
    total: int


class DuplicatesProgress(CountProgress):
    """A search for duplicates has."""

    computed: int = Field(description="of those so far, that were not known before")


class CountsEvent(Told):
    """How far a run is; it was paused or goes on."""

    total: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    active: int = Field(description="documents that are under way")
    pace: float = Field(description="seconds between the ends of two documents, smoothed")


class DocumentEvent(CountsEvent):
    """A document of a run has ended."""

    document: str
    name: str
    job: str
    state: Literal["succeeded", "failed", "cancelled", "expired"]
    code: str | None = Field(default=None, description="of the problem, where there is one")


class ProblemCode(BaseModel):
    """The code of a problem; its detail, which may quote a document, is at the job."""

    code: str


class OfTenant(Told):
    """What a state is of: a job (and the run that it is of, if any), a run, or a batch."""

    type: TypeName
    matter: str = Field(description="the client's matter, empty where there is none")
    external_id: str = Field(description="the client's name of the job, empty where there is none")
    job: str | None = None
    run: str | None = Field(default=None, description="empty for a job of no run")
    batch: str | None = None


class TenantWaitingEvent(OfTenant, WaitingEvent):
    """A job, run or batch waits."""


class TenantScheduledEvent(OfTenant, ScheduledEvent):
    """A job or run waits for its time."""


class TenantRetriedEvent(OfTenant):
    """An attempt failed for a passing reason and is made again."""

    state: Literal["scheduled"]
    attempt: int
    problem: ProblemCode


class TenantRunningEvent(OfTenant, RunningEvent):
    """A worker has begun an attempt of a job."""


class TenantEndedEvent(OfTenant):
    """The end of a job, run or batch, unless it failed."""

    state: Literal["succeeded", "cancelled", "expired"]
    problem: ProblemCode | None = Field(default=None, description="where what it was about was erased")


class TenantFailedEvent(OfTenant):
    """A job, run or batch has failed."""

    state: Literal["failed"]
    problem: ProblemCode


class TenantCountsEvent(OfTenant, CountsEvent):
    """A run was paused or goes on."""


class PlaceEvent(BaseModel):
    """Nothing but its id: where the stream is."""


_ENDS: Final = ("succeeded", "cancelled", "expired")
JOB_EVENTS: Final[Events] = {
    WaitingEvent: ("queued", "waiting"),
    ScheduledEvent: ("scheduled",),
    RetriedEvent: ("scheduled",),
    RunningEvent: ("running",),
    StepEvent: ("step",),
    SearchProgress: ("progress",),
    TermsProgress: ("progress",),
    CountProgress: ("progress",),
    DuplicatesProgress: ("progress",),
    TokenEvent: ("token",),
    EndedEvent: _ENDS,
    FailedEvent: ("failed",),
    Problem: ("interrupted",),
}
"""The events of a job: what their data is, and the names under which it comes."""
RUN_EVENTS: Final[Events] = {
    WaitingEvent: ("waiting",),
    ScheduledEvent: ("scheduled",),
    DocumentEvent: ("document",),
    CountsEvent: ("paused", "resumed"),
    EndedEvent: _ENDS,
    FailedEvent: ("failed",),
    Problem: ("interrupted",),
}
"""The same of a run."""
TENANT_EVENTS: Final[Events] = {
    PlaceEvent: ("ready", "gap", "idle"),
    TenantWaitingEvent: ("queued", "waiting"),
    TenantScheduledEvent: ("scheduled",),
    TenantRetriedEvent: ("scheduled",),
    TenantRunningEvent: ("running",),
    TenantCountsEvent: ("paused", "resumed"),
    TenantEndedEvent: _ENDS,
    TenantFailedEvent: ("failed",),
    Problem: ("interrupted",),
}
"""The same of a tenant."""
