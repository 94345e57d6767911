"""What the gateway answers, typed: documents, jobs, runs, events, erasures. Members that it does not know are left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from casemill.problems import JobFailed

FINAL = frozenset(("succeeded", "failed", "cancelled", "expired"))


class View(BaseModel):
    """A thing as it stood when the gateway answered; frozen, ``model_dump(mode="json")`` makes JSON of it."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    id: str


class Page(BaseModel):
    """Some rows of a list, and where it goes on."""

    data: list[Any]
    next_cursor: str | None


class Row(BaseModel):
    """By what a row of a run's results is told from the others."""

    number: int


class Document(View):
    """A document that is stored. ``kind``, ``pages``, ``chars`` and ``notes`` are ``None`` until it has been read.

    Attributes:
        bytes: its size as it was uploaded.
        chars: Unicode code points of its text; offsets in results count them.
        notes: what the reader says of it, e.g. that pages were scanned.
    """

    name: str
    bytes: int
    matter: str | None = None
    created_at: datetime
    kind: str | None = None
    pages: int | None = None
    chars: int | None = None
    notes: list[str] | None = None


class Erasure(BaseModel):
    """What the erasure of a matter removed, in numbers.

    Attributes:
        documents: with all that was derived from them.
        jobs: whose input, events and results are gone; those that ran have ended.
        blobs: files of documents, texts, embeddings and results.
    """

    model_config = View.model_config

    matter: str
    documents: int = 0
    jobs: int = 0
    schedules: int = 0
    blobs: int = 0


class Work(View):
    """What jobs and runs share.

    Attributes:
        state: ``scheduled``, ``queued``, ``waiting`` (for its steps or documents), ``running``; at the end
            ``succeeded``, ``failed``, ``cancelled`` or ``expired``.
        callback: the webhook that is told of the end, beside those that subscribe to it.
        problem: why it failed, as the members of an RFC 9457 problem.
    """

    type: str
    state: str
    priority: str
    model: str | None = None
    matter: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict[str, str])
    callback: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    eta_seconds: float | None = None
    cancelling: bool = False
    problem: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in FINAL


class Job(Work):
    """Where a job stands.

    Attributes:
        external_id: your own name of it.
        request_id: of the request that submitted it, as it stands in the logs.
        step: the step that waits or runs now, one of ``steps``.
        position: jobs before this one in its backlog.
        eta_seconds: until it starts.
        result: what it was for, once it has succeeded; lists leave it out.
    """

    device: str = "any"
    external_id: str | None = None
    request_id: str | None = None
    attempt: int = 0
    steps: list[str] = Field(default_factory=list[str])
    step: str | None = None
    position: int | None = None
    result: dict[str, Any] | None = None

    def raise_for_state(self) -> None:
        """Raise :class:`casemill.JobFailed` where it has no result: its problem, or ``job_cancelled`` and the like."""
        problem = self.problem
        if problem is None and self.state != "succeeded":
            detail = f"the job {self.id} ended as {self.state}; submit it again"
            problem = {"code": f"job_{self.state}", "detail": detail, "status": 409}
        if problem:
            raise JobFailed(
                str(problem["detail"]),
                job=self,
                code=str(problem["code"]),
                status=int(problem["status"]),
                retryable=bool(problem.get("retryable")),
                request_id=self.request_id,
                body=problem,
            )


class Run(Work):
    """Where a run over many documents stands.

    Attributes:
        total: its documents; ``active`` are under way, the other counts say how those that ended did.
        reused: succeeded without anything to compute, as it was done before.
        eta_seconds: until the last document ends, at the present pace.
        sealed: whether no more documents can be added.
        due_at: the time of the ``schedule`` that this run is for.
    """

    name: str
    total: int
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    reused: int = 0
    documents_per_second: float | None = None
    paused: bool = False
    sealed: bool = False
    schedule: str | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a job or run, or of all that a key may see.

    Attributes:
        id: its place in the stream; give it as ``after`` to go on behind it.
        event: a state (``queued``, ``running``, ``succeeded`` …), ``step``, ``progress``, ``token``, ``document``, or
            ``interrupted``: the gateway ended the stream before its time, and the client takes it up again. What
            follows all has states, and ``ready``, ``gap`` and ``idle`` of its own.
        data: what belongs to it, e.g. ``{"text": …}`` of a token or the counts of a run.
    """

    id: str
    event: str
    data: dict[str, Any]

    @property
    def final(self) -> bool:
        """Whether it is the state that the job or run ended in."""
        return self.event in FINAL
