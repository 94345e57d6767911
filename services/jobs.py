"""The words of the job model: types, lanes, priorities, states, and the records that carry them."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from services.errors import InvalidRequest

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
"""What a client notes on its work, as OpenAI limits it."""


class Lane(StrEnum):
    """Kind of resource that a job needs; each lane has backlogs and ticket queues of its own."""

    GENERATE = "generate"
    EMBED = "embed"
    ANALYZE = "analyze"
    EXTRACT = "extract"
    DELIVER = "deliver"


class Device(StrEnum):
    """Class of worker that may run a job."""

    GPU = "gpu"
    CPU = "cpu"
    ANY = "any"


class Priority(StrEnum):
    """How urgent a job is; members stand in claiming order."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    BULK = "bulk"

    @property
    def rank(self) -> int:
        """0 for critical … 4 for bulk."""
        return _RANKS[self]


_RANKS: Final = {priority: rank for rank, priority in enumerate(Priority)}


class State(StrEnum):
    """Where a job stands; the last four are final."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED)


class JobType(StrEnum):
    """What a client can ask for."""

    GENERATE = "generate"
    EMBED = "embed"
    ANALYZE = "analyze"
    EXTRACT = "extract"
    REVIEW = "review"
    SEARCH = "search"
    COMPARE = "compare"
    DUPLICATES = "duplicates"
    COUNT = "count"


PROMPTS: Final = (JobType.GENERATE, JobType.EMBED)
"""The types whose input is all that they are about; the others are about documents."""


LANE_OF_TYPE: Final = {
    JobType.GENERATE: Lane.GENERATE,
    JobType.EMBED: Lane.EMBED,
    JobType.ANALYZE: Lane.ANALYZE,
    JobType.EXTRACT: Lane.EXTRACT,
    JobType.REVIEW: Lane.ANALYZE,
    JobType.SEARCH: Lane.EMBED,
    JobType.COMPARE: Lane.ANALYZE,
    JobType.DUPLICATES: Lane.ANALYZE,
    JobType.COUNT: Lane.ANALYZE,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a parent job; ``task`` names the worker's function, ``name`` is unique in the plan."""

    name: str
    task: str
    lane: Lane
    device: Device = Device.ANY
    cost: float = 1.0
    model: str | None = None

    def fields(self) -> dict[str, str]:
        """The step as the Lua scripts read it."""
        return {
            "name": self.name,
            "task": self.task,
            "lane": self.lane,
            "device": self.device,
            "cost": str(self.cost),
            "model": self.model or "",
        }


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to be accepted. ``input`` is JSON-ready; ``plan`` makes the job a parent that holds no slot.

    ``document`` is the one that the job is about, with which it goes, as it goes with its ``matter``.

    ``cost`` is the expected seconds of work, which a tenant's virtual time advances by. ``bytes`` is the size of an
    input that lies in a blob. ``not_before`` and ``expires_at`` are seconds since the epoch: the job does not start
    before the one, and ends as ``expired`` if it has not ended by the other. ``request_hash`` stands for the request as
    the client sent it: the same idempotency key with another one is refused. ``external_id`` is the client's own name.
    ``callback`` is the webhook that is told of its end, whatever that subscribes to.
    """

    tenant: str
    type: JobType
    input: dict[str, Any]
    document: str | None = None
    priority: Priority = Priority.NORMAL
    device: Device = Device.ANY
    model: str | None = None
    matter: str | None = None
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    plan: tuple[Step, ...] = ()
    cost: float = 1.0
    bytes: int = 0
    not_before: float | None = None
    expires_at: float | None = None
    idempotency_key: str | None = None
    request_hash: str = ""
    request_id: str | None = None
    callback: str | None = None
    external_id: str | None = None

    @property
    def lane(self) -> Lane:
        """The lane in which the job, or its first step, waits."""
        return self.plan[0].lane if self.plan else LANE_OF_TYPE[self.type]


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that a worker's slot holds by lease. ``outputs`` are a parent's finished steps: step name → blob.

    ``document`` and ``matter`` are what it is about, if it is about one. ``device`` is the class that it asked for.
    Of ``attempt`` executions ``released`` do not count: they were handed back, or of a life before a replay.
    """

    tenant: str
    id: str
    attempt: int
    task: str
    lane: Lane
    priority: Priority
    input: dict[str, Any]
    model: str | None
    parent: str | None
    step: str | None
    outputs: dict[str, str]
    request_id: str | None
    released: int = 0
    document: str | None = None
    matter: str | None = None
    device: Device = Device.ANY

    @classmethod
    def from_fields(cls, fields: dict[str, str], parent: dict[str, str]) -> Claim:
        """What a script answers of a job that was claimed, and of its parent."""
        return cls(
            tenant=fields["tenant"],
            id=fields["id"],
            attempt=int(fields["attempt"]),
            task=fields["task"],
            lane=Lane(fields["lane"]),
            priority=Priority(fields["priority"]),
            input=json.loads(fields["input"]),
            model=fields.get("model") or None,
            parent=fields.get("parent") or None,
            step=fields.get("step") or None,
            outputs=_outputs(parent),
            request_id=fields.get("request_id") or None,
            released=int(fields.get("released", "0")),
            document=fields.get("document") or None,
            matter=fields.get("matter") or None,
            device=Device(fields.get("device") or Device.ANY),
        )

    @property
    def tries(self) -> int:
        """Executions in this life of the job that count, this one included."""
        return self.attempt - self.released

    @property
    def member(self) -> str:
        """The claim as it stands in the set of leases."""
        return f"{self.tenant}|{self.id}|{self.attempt}"

    @property
    def root(self) -> str:
        """Id of the job that the client submitted."""
        return self.parent or self.id


@dataclass(frozen=True, slots=True)
class Choice:
    """What a slot may claim of what waits in its lane.

    ``ranks`` limits it to the most urgent priorities; ``models`` maps those that the worker can load to whether they
    are loaded, ``None`` where jobs need none. ``suspects``: whether it may be a job that may have killed its worker,
    of which a worker runs one at a time.
    """

    ranks: int = len(Priority)
    models: Mapping[str, bool] | None = None
    suspects: bool = True


ANYTHING: Final = Choice()


Outcome = Literal["succeeded", "failed", "retry", "released", "cancelled"]


@dataclass(frozen=True, slots=True)
class Completion:
    """What became of a claim. ``problem`` tells why it failed or is retried.

    ``result`` is a blob's name or, where it is small, the JSON object itself.
    ``reused`` says that nothing was computed: all of the job's work had been done before.
    """

    claim: Claim
    outcome: Outcome
    result: str = ""
    problem: dict[str, Any] | None = None
    retry_after: float = 0.0
    reused: bool = False


def is_inline(result: str) -> bool:
    """Whether what a record has as its result is the JSON object itself, and no blob's name."""
    return result.startswith("{")


@dataclass(frozen=True, slots=True)
class Job:
    """The whole record of a job; times are seconds since the epoch on the Redis server's clock, 0.0 if not reached."""

    tenant: str
    id: str
    type: JobType
    state: State
    priority: Priority
    device: Device
    lane: Lane
    model: str | None
    matter: str | None
    input: dict[str, Any]
    metadata: dict[str, str]
    attempt: int
    created: float
    queued: float
    started: float
    finished: float
    parent: str | None
    step: str | None
    steps: tuple[str, ...]
    current: str | None
    outputs: dict[str, str]
    result: str | None
    problem: dict[str, Any] | None
    worker: str | None
    cancelling: bool
    callback: str | None
    request_id: str | None
    external_id: str | None

    @classmethod
    def from_fields(cls, fields: dict[str, str]) -> Job:
        """The record that the scripts wrote."""
        plan: list[dict[str, str]] = json.loads(fields.get("plan") or "[]")
        return cls(
            tenant=fields["tenant"],
            id=fields["id"],
            type=JobType(fields["type"]),
            state=State(fields["state"]),
            priority=Priority(fields["priority"]),
            device=Device(fields["device"]),
            lane=Lane(fields["lane"]),
            model=fields.get("model") or None,
            matter=fields.get("matter") or None,
            input=json.loads(fields["input"]),
            metadata=json.loads(fields.get("metadata") or "{}"),
            attempt=int(fields.get("attempt", "0")) - int(fields.get("released", "0")),
            created=float(fields["created"]),
            queued=float(fields.get("queued", "0")),
            started=float(fields.get("started", "0")),
            finished=float(fields.get("finished", "0")),
            parent=fields.get("parent") or None,
            step=fields.get("step") or None,
            steps=tuple(step["name"] for step in plan),
            current=fields.get("current") or None,
            outputs=_outputs(fields),
            result=fields.get("result") or None,
            problem=json.loads(fields["problem"]) if fields.get("problem") else None,
            worker=fields.get("worker") or None,
            cancelling=bool(fields.get("cancel")),
            callback=fields.get("callback") or None,
            request_id=fields.get("request_id") or None,
            external_id=fields.get("external_id") or None,
        )


def _outputs(record: dict[str, str]) -> dict[str, str]:
    return {name[4:]: blob for name, blob in record.items() if name.startswith("out:")}


NAME_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_NAME = re.compile(NAME_PATTERN)


def check_name(value: str, what: str) -> str:
    """``value``, if it can stand in a key; raises ``InvalidRequest`` otherwise."""
    if not _NAME.fullmatch(value):
        raise InvalidRequest(
            f"{what} {value!r} is not a name: use 1 to 64 letters, digits, dots, dashes or underscores",
            code="name_invalid",
        )
    return value


def is_delivery(job: str) -> bool:
    """Whether an id is of a message to a webhook, which lives as a job does and is none."""
    return job.startswith("dlv_")


def new_id(kind: str) -> str:
    """A new id, ``<kind>_<48 bits of milliseconds><80 random bits>``: sorts by time, cannot be guessed."""
    return f"{kind}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
