"""The wire types of what an installation says of itself: readiness, versions, workers, lanes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from pydantic import BaseModel, Field

from gateway.described import Described
from gateway.schemas import DeviceName, Problem, named
from services.capacity import Scale
from services.fleet import Announcement
from services.jobs import Lane
from services.json_model import JsonModel
from services.scaling import Kind

KindName = Annotated[str, named(Kind)]
LaneName = Annotated[str, named(Lane)]


class RedisCheck(BaseModel):
    """The Redis server: whether it answers, and whether what it accepts is on the disk."""

    ok: bool
    server: str | None = None
    version: str | None = None
    appendonly: str | None = None
    appendfsync: str | None = None
    durable: Annotated[str, named(("yes", "no"))] | None = None
    problem: Annotated[dict[str, object] | None, Described(Problem | None)] = None


class WorkersCheck(BaseModel):
    """Whether any worker lives, and what those that do serve."""

    ok: bool
    count: int
    lanes: list[LaneName]


class Checks(BaseModel):
    """What the gateway depends on."""

    redis: RedisCheck
    workers: WorkersCheck | None = None


class Readiness(BaseModel):
    """Whether work can be accepted."""

    ready: bool
    checks: Checks | None = Field(default=None, description="for requests with a key")


class Versions(BaseModel):
    """Versions of Casemill and of what it runs on."""

    casemill: str
    celery: str
    fastapi: str
    redis: str
    python: str


class WorkerModelView(BaseModel):
    """A model that a worker can serve."""

    name: str
    kind: str
    sha256: str
    context_tokens: int
    loaded: bool


class WorkerView(BaseModel):
    """A live worker as it announced itself in the last seconds."""

    id: str
    kind: KindName
    host: str
    pid: int
    device: DeviceName
    device_name: str
    lanes: list[LaneName]
    slots: int
    busy: int
    reserved: int = Field(description="slots that are for urgent work alone")
    reserved_busy: int
    cores: list[int]
    models: list[WorkerModelView]
    memory: int = Field(description="resident bytes")
    engine: str
    version: str
    started: float
    stalled: float = Field(description="seconds for which work has waited that its free slots should have taken")
    weight: int
    draining: bool

    @classmethod
    def of(cls, worker: Announcement) -> WorkerView:
        """The view of an announcement, without what its engines count, which is in ``/metrics``."""
        return cls.model_validate(asdict(worker) | {"kind": worker.kind})


class BoundsRequest(JsonModel):
    """How many workers of a kind there may be; what is left out stays as it is."""

    min: int | None = Field(default=None, ge=1, description="the fewest")
    max: int | None = Field(default=None, ge=1, description="the most, within what the machine has room for")


class ScaleView(BaseModel):
    """How many workers of a kind there are, should be and may be, and why."""

    kind: KindName
    live: int
    desired: int
    min: int
    max: int
    reason: str

    @classmethod
    def of(cls, scale: Scale) -> ScaleView:
        """The view of a decision."""
        return cls.model_validate(asdict(scale))


class WorkerList(BaseModel):
    """Live workers, and the counts of each kind."""

    data: list[WorkerView]
    kinds: list[ScaleView]


class LaneView(BaseModel):
    """What waits in a lane, and who serves it."""

    lane: LaneName
    waiting: int
    by_device_and_priority: dict[str, int] = Field(examples=[{"any/normal": 3}])
    oldest_seconds: float | None
    workers: int
    slots: int
    busy: int


class LaneList(BaseModel):
    """All lanes."""

    data: list[LaneView]
