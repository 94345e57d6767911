"""The wire types of bulk runs and of their schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from gateway.schemas import (
    Callback,
    DeviceName,
    ExpiresAt,
    JobProblem,
    MatterName,
    NextCursor,
    NotBefore,
    PlaybookName,
    PriorityName,
    StateName,
    TypeName,
    moment,
    named,
)
from services.jobs import Metadata
from services.json_model import JsonModel
from services.recurrence import Missed
from services.runs import Run, RunDocument
from services.schedules import Schedule

NEXT_TIMES = 5
Name = Annotated[str, Field(min_length=1, max_length=200)]
DocumentIds = Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=10_000)]


class RunRequest(JsonModel):
    """What is done to many documents: those listed, or all of a matter, or those added until the run is sealed."""

    name: Name = "run"
    type: Annotated[str, named(("review", "analyze", "extract"))] = "review"
    documents: DocumentIds | None = Field(default=None, description="ids from POST /v1/documents")
    matter: MatterName | None = Field(
        default=None, description="without `documents` and `open`: all documents of this matter"
    )
    open: bool = Field(default=False, description="more documents follow; the run ends only once it is sealed")
    priority: PriorityName = "bulk"
    device: DeviceName = "any"
    model: str | None = Field(default=None, description="generation model of a review; `none` leaves generation out")
    playbook: PlaybookName = "default"
    force: bool = Field(default=False, description="compute again what was done for the same text and versions")
    metadata: Metadata = Field(default_factory=dict[str, str])
    callback: Callback = None
    not_before: NotBefore = None
    expires_at: ExpiresAt = None


class RunDocumentsRequest(JsonModel):
    """Documents for a run that is open."""

    documents: DocumentIds


class RunView(BaseModel):
    """Where a run stands."""

    id: str
    name: str
    type: TypeName
    state: StateName
    priority: PriorityName
    model: str | None
    matter: str | None
    metadata: dict[str, str]
    callback: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    total: int
    active: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    reused: int = Field(description="succeeded without anything to compute, as it was done before")
    documents_per_second: float | None
    eta_seconds: float | None = Field(description="until the last document ends, at the present pace")
    paused: bool
    sealed: bool = Field(description="whether no more documents can be added")
    cancelling: bool
    schedule: str | None
    due_at: datetime | None = Field(description="the schedule's time that this run is for")
    problem: JobProblem = Field(description="why it failed, once it has ended")

    @classmethod
    def of(cls, run: Run) -> RunView:
        """The view of a record."""
        return cls(
            id=run.id,
            name=run.name,
            type=run.type,
            state=run.state,
            priority=run.priority,
            model=run.model,
            matter=run.matter,
            metadata=run.metadata,
            callback=run.callback,
            created_at=moment(run.created),
            started_at=moment(run.started) if run.started else None,
            finished_at=moment(run.finished) if run.finished else None,
            total=run.total,
            active=run.active,
            succeeded=run.succeeded,
            failed=run.failed,
            cancelled=run.cancelled,
            expired=run.expired,
            reused=run.reused,
            documents_per_second=round(1 / run.pace, 3) if run.pace else None,
            eta_seconds=run.eta_seconds,
            paused=run.paused,
            sealed=run.sealed,
            cancelling=run.cancelling and not run.state.final,
            schedule=run.schedule,
            due_at=moment(run.due) if run.due else None,
            problem=run.problem,
        )


class RunList(BaseModel):
    """Runs, newest first."""

    data: list[RunView]
    next_cursor: NextCursor


class RunDocumentView(BaseModel):
    """One document of a run; ``seconds`` is from its first step to its end."""

    document: str
    number: int
    name: str | None
    state: StateName
    job: str | None
    reused: bool
    seconds: float | None
    code: str | None = Field(description="of the problem, where it failed")
    detail: str | None

    @classmethod
    def of(cls, document: RunDocument) -> RunDocumentView:
        """The view of an entry."""
        return cls.model_validate(document, from_attributes=True)


class RunDocumentList(BaseModel):
    """Documents of a run by number."""

    data: list[RunDocumentView]
    next_cursor: NextCursor


class ScheduleRequest(JsonModel):
    """Runs over a matter that recur: ``cron`` or ``rrule``, in a time zone."""

    name: Name
    cron: str | None = Field(default=None, max_length=200, description="minute hour day month weekday")
    rrule: str | None = Field(default=None, max_length=500, description="a rule of RFC 5545")
    time_zone: str = Field(default="UTC", description="IANA name, such as Europe/London")
    missed: Annotated[str, named(Missed, "what happens to times when everything was off")] = "once"
    run: RunRequest = Field(description="with `matter`; what each run does")


class ScheduleView(BaseModel):
    """A schedule and when it is due."""

    id: str
    name: str
    cron: str | None
    rrule: str | None
    time_zone: str
    missed: Annotated[str, named(Missed)]
    type: TypeName
    matter: str | None
    priority: PriorityName
    created_at: datetime
    paused: bool
    next_times: list[datetime]
    last_due_at: datetime | None
    last_run: str | None

    @classmethod
    def of(cls, schedule: Schedule) -> ScheduleView:
        """The view of a record."""
        rule, work = schedule.recurrence, schedule.work
        return cls(
            id=schedule.id,
            name=schedule.name,
            cron=rule.cron,
            rrule=rule.rrule,
            time_zone=rule.zone,
            missed=schedule.missed,
            type=work.type,
            matter=work.matter,
            priority=work.priority,
            created_at=moment(schedule.created),
            paused=schedule.paused,
            next_times=[moment(time) for time in schedule.next_times(NEXT_TIMES)],
            last_due_at=moment(schedule.last_due) if schedule.last_due else None,
            last_run=schedule.last_run,
        )


class ScheduleList(BaseModel):
    """Schedules, oldest first."""

    data: list[ScheduleView]
    next_cursor: NextCursor
