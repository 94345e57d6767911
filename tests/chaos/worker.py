"""A worker process for chaos tests: the real slots, pulse, caretaker and Celery around tasks that sleep, die or hang.

``python -m tests.chaos.worker NAME THREADS [CLOCK [DEAF]]``; the settings come from the environment as for any worker,
and its clock is ``CLOCK`` seconds ahead. With a time DEAF in seconds, Celery consumes nothing of ours and the process
has that long to notice. The input of a job says what it does: ``seconds`` to work for in steps, ``die`` to take the
process along, ``hang`` never to move, ``stall`` to hang at the first attempt as an engine does in a native call,
``lose`` to lose the GPU at the first attempt. The steps ``extract`` and ``scan`` of a plan do what the input of their
parent says.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

import numpy as np

import shaders.runtime as runtimes
import workers.pulse as pulses
from services.blobs import Blobs
from services.broker import create_celery
from services.caretaker import Caretaker
from services.fleet import Announcement, Fleet
from services.jobs import Device, Lane
from services.lifecycle import Lifecycle
from services.settings import load_settings
from workers.execution import Execution
from workers.liveness import Consumer
from workers.pulse import Pulse
from workers.slots import Slots, Task, Work
from workers.ticket import register_ticket

# An engine that stands still for a second here has done so for the two minutes after which its process ends itself.
STALL_PACE = pulses.STALL_SECONDS
QUEUES = ["analyze.any", "extract.any"]
_stalls: list[float] = []


def stalled() -> float:
    """Seconds that the engine stands still, as ``Engines.stalled`` answers."""
    return (time.monotonic() - _stalls[0]) * STALL_PACE if _stalls else 0.0


def act(execution: Execution) -> dict[str, Any]:
    """Do what the input says."""
    asked = execution.claim.input
    if asked.get("stall") and execution.claim.attempt == 1:
        _stalls.append(time.monotonic())
        threading.Event().wait()
    if asked.get("lose") and execution.claim.attempt == 1:
        found = runtimes.runtime()
        found._device.destroy()
        found.upload(np.zeros(4, np.uint32))
    if asked.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    while asked.get("hang"):
        time.sleep(1)
    until = time.monotonic() + float(asked.get("seconds", 0))
    while time.monotonic() < until:
        execution.check()
        time.sleep(0.02)
    return {}


def main() -> int:
    """Serve until SIGTERM."""
    name, threads, more = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    set_clock(float(more[0]) if more else 0.0)
    deaf = len(more) > 1
    if deaf:
        pulses.DEAF_SECONDS = float(more[1])
    settings = load_settings()
    lifecycle = Lifecycle(settings)
    fleet = Fleet(lifecycle.client, lifecycle.keys)

    def describe(busy: int) -> Announcement:
        lanes = (Lane.ANALYZE, Lane.EXTRACT)
        return Announcement(
            name, "here", os.getpid(), Device.CPU, "", lanes, threads, busy, (), (), 0, settings.engine, "0", 0.0
        )

    consumer = Consumer(lifecycle, QUEUES, lambda: (slots.arrived, threads - slots.busy, slots.draining))
    pulse = Pulse(lifecycle, fleet, describe, stalled, consumer.look, runtimes.lost)
    tasks: dict[str, Task] = {"analyze": act, "extract": act, "scan": act}
    work = Work(tasks, lambda claim, _: f"res_{claim.attempt}", lambda _: None)
    app = create_celery(settings)
    slots = Slots(lifecycle, pulse, work, worker=name, device=Device.CPU, seats=threads, stalled=stalled)
    register_ticket(app, slots)
    pulse.start()
    Caretaker(lifecycle, Blobs(settings.data_dir)).start()
    print("ready", flush=True)
    app.Worker(
        hostname=name,
        pool="threads",
        concurrency=threads,
        queues=["elsewhere"] if deaf else QUEUES,
        loglevel="ERROR",
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    ).start()
    return 0


def set_clock(ahead: float) -> None:
    """Let this process believe that it is ``ahead`` seconds later than it is."""
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + ahead
    time.time_ns = lambda: nanoseconds() + int(ahead * 1e9)


if __name__ == "__main__":
    sys.exit(main())
