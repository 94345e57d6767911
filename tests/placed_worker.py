"""A small real worker that announces itself, for tests and figures of placement: sleeping jobs around the real slots.

``python -m tests.placed_worker NAME --slots N --weight N --slowness F``; the settings come from the environment as for
any worker. The input of a job says how many ``seconds`` it takes where the slowness is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from services.blobs import Blobs
from services.broker import create_celery, read_own_queues
from services.caretaker import Caretaker
from services.fleet import Announcement, Fleet
from services.jobs import Device, Lane
from services.lifecycle import Lifecycle
from services.settings import PULL, load_settings
from services.tickets import ticket_queue
from workers.execution import Execution
from workers.pulse import Pulse
from workers.slots import Slots, Work
from workers.ticket import register_ticket


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--weight", type=int)
    parser.add_argument("--slowness", type=float, default=1)
    options = parser.parse_args()
    settings = load_settings()
    placed = settings.placement != PULL
    lifecycle = Lifecycle(settings)

    def sleep(execution: Execution) -> dict[str, Any]:
        until = time.monotonic() + float(execution.claim.input["seconds"]) * options.slowness
        while (left := until - time.monotonic()) > 0:
            execution.check()
            time.sleep(min(left, 0.1))
        return {}

    def describe(busy: int) -> Announcement:
        return Announcement(
            options.name,
            "here",
            os.getpid(),
            Device.CPU,
            "",
            (Lane.ANALYZE,),
            options.slots,
            busy,
            (),
            models=(),
            memory=0,
            engine="fake",
            version="0",
            started=0.0,
            weight=options.weight or options.slots,
            draining=slots.draining,
        )

    fleet = Fleet(lifecycle.client, lifecycle.keys, placed=placed)
    pulse = Pulse(lifecycle, fleet, describe, lambda: 0.0)
    work = Work({"analyze": sleep}, lambda claim, _: f"res_{claim.attempt}", lambda _: None)
    slots = Slots(lifecycle, pulse, work, worker=options.name, device=Device.CPU, seats=options.slots, placed=placed)
    app = create_celery(settings)
    app.conf.update(worker_send_task_events=False)
    register_ticket(app, slots, pulse.announce)
    own = [ticket_queue(Lane.ANALYZE, device, options.name) for device in (Device.CPU, Device.ANY)] if placed else []
    read_own_queues(app, own)
    pulse.start()
    Caretaker(lifecycle, Blobs(settings.data_dir)).start()
    app.Worker(
        hostname=options.name,
        pool="threads",
        concurrency=options.slots,
        queues=[*own, "analyze.cpu", "analyze.any"],
        loglevel="ERROR",
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    ).start()
    return 0


if __name__ == "__main__":
    sys.exit(main())
