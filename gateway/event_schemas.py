"""What stands in the ``data`` of server-sent events, for the description; the scripts and workers write it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.described import Described
from gateway.schemas import Problem, StateName, TypeName


class JobEvent(BaseModel):
    """An event of a job; its name is the new state, or ``step``, ``progress`` or ``token``."""

    model_config = ConfigDict(extra="allow")

    t: str | None = Field(default=None, description="seconds since the epoch")
    state: StateName | None = Field(default=None, description="of the job, or of the step")
    step: str | None = Field(default=None, description="the step that it is about")
    reason: str | None = Field(default=None, examples=["worker_lost"])
    attempt: int | None = None
    worker: str | None = None
    due: str | None = Field(default=None, description="when a scheduled job may start")
    text: str | None = Field(default=None, description="of a token: more of the generated text")
    problem: Annotated[dict[str, Any] | None, Described(Problem | None)] = None


class RunEvent(BaseModel):
    """An event of a run: its new state, ``paused``, ``resumed``, or ``document`` when one has ended."""

    model_config = ConfigDict(extra="allow")

    t: str | None = Field(default=None, description="seconds since the epoch")
    state: StateName | None = None
    document: str | None = None
    name: str | None = None
    job: str | None = None
    code: str | None = Field(default=None, description="of the problem, where the document failed")
    total: int | None = None
    succeeded: int | None = None
    failed: int | None = None
    cancelled: int | None = None
    expired: int | None = None


class ProblemCode(BaseModel):
    """The code of a problem; its detail, which may quote a document, is at the job."""

    code: str


class TenantEvent(BaseModel):
    """A state of a job or run of the tenant; ``ready``, ``gap`` and ``idle`` have no members."""

    model_config = ConfigDict(extra="allow")

    t: str | None = None
    state: StateName | None = None
    type: TypeName | None = None
    job: str | None = None
    run: str | None = None
    batch: str | None = None
    matter: str | None = None
    external_id: str | None = None
    problem: ProblemCode | None = None
