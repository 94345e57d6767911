"""The fleet: what each live worker says of itself, so that the gateway knows what can be served now."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from services.jobs import Device
from services.keys import Keys
from services.redis_client import Pipeline, Redis, redis_errors, server_time
from services.scaling import Kind, kind_of
from services.tickets import ticket_queue

ANNOUNCEMENT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """A model that a worker can serve; ``kind`` is ``generate`` or ``embed``, ``loaded``: it is in memory."""

    name: str
    kind: str
    sha256: str
    context_tokens: int
    loaded: bool


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """How often what (``first_token``, ``between_tokens``) took how long for requests of a priority, 0 to 4.

    ``buckets`` are counts below each of ``timings.TOKEN_BOUNDS`` and above the one before, then those above all;
    ``sum`` is in seconds.
    """

    what: str
    priority: int
    buckets: tuple[int, ...]
    sum: float


@dataclass(frozen=True, slots=True)
class EngineView:
    """What the engine of a loaded model has done since its load, which took ``load_seconds``, and how it stands."""

    model: str
    load_seconds: float
    counts: dict[str, int]
    gauges: dict[str, int]
    times: tuple[TokenTimes, ...] = ()


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a worker says of itself every few seconds; ``memory`` is its resident size in bytes.

    ``reserved`` slots of the lane generate are for urgent work alone, ``reserved_busy`` of them at work. ``stalled`` is
    for how many seconds tickets have waited that its free slots should have taken. ``weight`` is its share under
    weighted placement; one that is ``draining`` is not placed at. ``forgotten`` is the number of erasures that it knows
    of and keeps nothing of in memory.
    """

    id: str
    host: str
    pid: int
    device: str
    device_name: str
    lanes: tuple[str, ...]
    slots: int
    busy: int
    cores: tuple[int, ...]
    models: tuple[WorkerModel, ...]
    memory: int
    engine: str
    version: str
    started: float
    reserved: int = 0
    reserved_busy: int = 0
    stalled: float = 0.0
    weight: int = 1
    draining: bool = False
    engines: tuple[EngineView, ...] = ()
    forgotten: int = 0

    @property
    def kind(self) -> Kind:
        """Which of the counts that follow the load it belongs to."""
        return kind_of(self.device, self.lanes)


class Fleet:
    """Announces workers and lists the live ones; ``placed``: tickets go to queues of their own (`placement`)."""

    def __init__(self, client: Redis, keys: Keys, *, placed: bool = False) -> None:
        self._client = client
        self._keys = keys
        self._placed = placed

    def announce(self, announcement: Announcement) -> None:
        """Say that a worker lives; holds for ten seconds."""
        with redis_errors():
            pipeline = self._client.pipeline()
            name = self._keys("worker", id=announcement.id)
            pipeline.set(name, json.dumps(asdict(announcement)), ex=ANNOUNCEMENT_SECONDS)
            # The server's clock: hosts may differ, and the caretaker trims by it.
            now = server_time(self._client)
            pipeline.zadd(self._keys("workers"), {announcement.id: now})
            if self._placed:
                self._place(pipeline, announcement, now)
            pipeline.execute()

    def leave(self, worker: str) -> None:
        """Say that a worker has ended in order."""
        with redis_errors():
            self._client.delete(self._keys("worker", id=worker))
            self._client.zrem(self._keys("workers"), worker)

    def _place(self, pipeline: Pipeline, worker: Announcement, now: float) -> None:
        """Let tickets go to the worker's own queues, which live as long as it does, or take them back."""
        cells = [(lane, device) for lane in worker.lanes for device in (worker.device, Device.ANY)]
        queues = [ticket_queue(lane, device, worker.id) for lane, device in cells]
        ends = now + ANNOUNCEMENT_SECONDS
        record = json.dumps({"ends": ends, "slots": worker.slots, "weight": worker.weight, "queues": queues})
        for (lane, device), queue in zip(cells, queues, strict=True):
            name = self._keys("placement", lane=lane, device=device)
            if worker.draining:
                pipeline.hdel(name, worker.id)
                pipeline.delete(self._keys("tickets", queue=queue))
            else:
                pipeline.hset(name, worker.id, record)
                pipeline.expire(name, ANNOUNCEMENT_SECONDS)
                pipeline.expire(self._keys("tickets", queue=queue), ANNOUNCEMENT_SECONDS)

    def workers(self) -> list[Announcement]:
        """The live workers, by id."""
        with redis_errors():
            ids = sorted(self._client.zrange(self._keys("workers"), 0, -1))
            texts = self._client.mget([self._keys("worker", id=worker) for worker in ids]) if ids else []
        return [_announcement(json.loads(text)) for text in texts if text]

    def models(self) -> list[WorkerModel]:
        """Models that some live worker can serve, each name and kind once."""
        return list({(model.name, model.kind): model for worker in self.workers() for model in worker.models}.values())


def _announcement(raw: dict[str, Any]) -> Announcement:
    raw["models"] = tuple(WorkerModel(**model) for model in raw["models"])
    raw["engines"] = tuple(_engine_view(view) for view in raw.get("engines", ()))
    raw["lanes"], raw["cores"] = tuple(raw["lanes"]), tuple(raw["cores"])
    return Announcement(**raw)


def _engine_view(raw: dict[str, Any]) -> EngineView:
    raw["times"] = tuple(TokenTimes(**each | {"buckets": tuple(each["buckets"])}) for each in raw["times"])
    return EngineView(**raw)
