"""One worker process: pinned, announced, its threads serving tickets until it is told to drain."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

import celery.signals
import psutil

from services.batches import Batches
from services.blobs import Blobs
from services.broker import create_celery, read_own_queues
from services.caretaker import Caretaker
from services.documents import Documents
from services.errors import Unavailable
from services.files import Files
from services.fleet import Announcement, Fleet, WorkerModel
from services.jobs import Device, Lane
from services.known_models import KnownModels
from services.lifecycle import Lifecycle
from services.models import FAKE, Catalog, Model, fake_model
from services.playbook_store import PlaybookStore
from services.processes import give_way, keep_for_good
from services.settings import PULL, Settings
from services.tickets import ticket_queue
from services.webhooks import Webhooks
from shaders.runtime import lost
from workers.engines.registry import Engines
from workers.forgetting import Forgetting
from workers.hardware import pin, see_only, usable_cores
from workers.liveness import Consumer
from workers.pulse import Pulse
from workers.rooms import Rooms
from workers.slots import Slots, Work
from workers.tasks import tasks
from workers.ticket import register_ticket
from workers.toolbox import Toolbox

log = logging.getLogger(__name__)

ANALYZE_BATCH = 4
_MODEL_KINDS = {Lane.GENERATE: "generate", Lane.EMBED: "embed"}


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker is started; ``cores`` empty means all, ``gpu`` is the place of its one GPU among the visible.

    ``weight`` is its share under weighted placement, by default its slots.
    """

    name: str
    device: Device
    lanes: tuple[Lane, ...]
    slots: int
    cores: tuple[int, ...] = ()
    gpu: int | None = None
    weight: int | None = None


def _batch(lane: Lane) -> int:
    """Steps of the lane analyze take milliseconds, so a claim may take some; elsewhere a job is worth a slot."""
    return ANALYZE_BATCH if lane is Lane.ANALYZE else 1


class Worker:
    """Builds the parts of a worker process and runs Celery in its main thread."""

    def __init__(self, options: WorkerOptions, settings: Settings) -> None:
        self._options = options
        self._settings = settings
        self._started = time.time()
        self.id = f"{options.name}@{socket.gethostname()}.{os.getpid()}"
        self._lifecycle = Lifecycle(settings)
        self._placed = settings.placement != PULL
        self._fleet = Fleet(self._lifecycle.client, self._lifecycle.keys, placed=self._placed)
        self._catalog = Catalog(settings.models_folder)
        self._engines = Engines(settings, self._catalog, len(options.cores or usable_cores()))
        blobs = Blobs(settings.data_dir, self._lifecycle.records.seals)
        documents = Documents(self._lifecycle.client, self._lifecycle.keys, blobs)
        cells = [(lane, device) for lane in options.lanes for device in (options.device, Device.ANY)]
        self._own_queues = [ticket_queue(lane, device, self.id) for lane, device in cells] if self._placed else []
        self._queues = [*self._own_queues, *(ticket_queue(lane, device) for lane, device in cells)]
        self._consumer = Consumer(self._lifecycle, self._queues, self._activity)
        rooms = Rooms(settings.resident_bytes)
        self._forgetting = Forgetting(self._lifecycle, (self._engines.forget, rooms.forget))
        self._pulse = Pulse(
            self._lifecycle,
            self._fleet,
            self._announcement,
            self._engines.stalled,
            self._consumer.look,
            lost,
            self._forgetting.look,
        )
        playbooks = PlaybookStore(self._lifecycle.client, self._lifecycle.keys, blobs)
        toolbox = Toolbox(
            settings,
            blobs,
            documents,
            self._engines,
            playbooks,
            Files(self._lifecycle, blobs),
            Batches(self._lifecycle),
            KnownModels(self._catalog, self._fleet),
            self._lifecycle.holds,
            rooms,
        )
        self._slots = Slots(
            self._lifecycle,
            self._pulse,
            Work(tasks(toolbox, Webhooks(self._lifecycle)), toolbox.keep_result, self._loadable, _batch),
            worker=self.id,
            device=options.device,
            seats=settings.sequences,
            placed=self._placed,
            stalled=self._engines.stalled,
        )
        self._caretaker = Caretaker(self._lifecycle, blobs)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; answers the exit status."""
        app = create_celery(self._settings)
        register_ticket(app, self._slots, self._pulse.announce)
        self._pulse.start()
        self._caretaker.start()
        _treat_interrupt_as_term()
        read_own_queues(app, self._own_queues)
        # Celery would raise the level of all loggers to its own, and no job with its request's id would be in the log.
        setup_logging: Any = celery.signals.setup_logging
        setup_logging.connect(_leave_as_it_is, weak=False)
        celery_worker = app.Worker(
            hostname=self.id,
            pool="threads",
            concurrency=self._options.slots,
            queues=self._queues,
            loglevel="WARNING",
            without_gossip=True,
            without_mingle=True,
            quiet=True,
        )
        try:
            celery_worker.start()
        finally:
            self._slots.drain()
            self._caretaker.stop()
            self._pulse.stop()
            self._engines.close()
            self._leave()
        return int(celery_worker.exitcode or (70 if lost() else 0))

    def _leave(self) -> None:
        try:
            self._fleet.leave(self.id)
        except Unavailable as error:
            log.warning("leaving: %s", error)

    def _activity(self) -> tuple[int, int, bool]:
        return self._slots.arrived, self._options.slots - self._slots.busy, self._slots.draining

    def _models(self) -> list[Model]:
        if self._settings.engine == FAKE:
            return [fake_model("generate"), fake_model("embed")]
        return self._catalog.list()

    def _loadable(self, lane: Lane) -> dict[str, bool] | None:
        """Models of a lane by name, and whether they are loaded; ``None`` where any job can run."""
        kind = _MODEL_KINDS.get(lane)
        if kind is None or self._settings.engine == FAKE:
            return None
        loaded = set(self._engines.loaded())
        return {model.name: model.name in loaded for model in self._models() if model.kind == kind}

    def _announcement(self, busy: int) -> Announcement:
        options = self._options
        loaded = self._engines.loaded()
        beyond = options.slots - self._settings.sequences if Lane.GENERATE in options.lanes else 0
        served = {_MODEL_KINDS[lane] for lane in options.lanes if lane in _MODEL_KINDS}
        return Announcement(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=options.device,
            device_name=f"gpu {options.gpu}" if options.gpu is not None else f"cores {list(options.cores) or 'all'}",
            lanes=options.lanes,
            slots=options.slots,
            busy=busy,
            cores=options.cores,
            models=tuple(
                WorkerModel(
                    name=model.name,
                    kind=model.kind,
                    sha256=model.sha256,
                    context_tokens=model.context_tokens,
                    loaded=model.name in loaded,
                )
                for model in self._models()
                if model.kind in served
            ),
            memory=psutil.Process().memory_info().rss,
            engine=self._settings.engine,
            version=importlib.metadata.version("casemill"),
            started=self._started,
            reserved=max(0, beyond),
            reserved_busy=self._slots.reserved_busy,
            stalled=self._consumer.deaf,
            weight=options.weight or options.slots,
            draining=self._slots.draining,
            engines=self._engines.views(),
            forgotten=self._forgetting.seen,
        )


def _treat_interrupt_as_term() -> None:
    """Ctrl-C at a worker of its own ends it as SIGTERM does: in order."""
    if sys.platform != "win32":

        def on_interrupt(_number: int, _frame: FrameType | None) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signal.SIGINT, on_interrupt)


def run_worker(options: WorkerOptions, settings: Settings) -> int:
    """Pin the process, then build and run its worker; answers the exit status.

    One on the CPU gives way to whoever else wants its cores; one that feeds a GPU needs little and is waited for.
    """
    pin(list(options.cores))
    if options.gpu is not None:
        see_only(options.gpu)
    if options.device is Device.CPU:
        give_way()
    worker = Worker(options, settings)
    keep_for_good()
    return worker.run()


def _leave_as_it_is(**_: object) -> None:
    """Where somebody answers to the signal, Celery sets up no logging."""
