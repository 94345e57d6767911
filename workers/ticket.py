"""The one Celery task of a worker, the ticket: it wakes a slot and shows in Flower what the slot does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import celery.signals
import celery.worker.state

from services.jobs import Claim, Lane
from services.tickets import TASK
from workers.slots import Slots
from workers.tally import MAX_SHOWN

log = logging.getLogger(__name__)

# Flower is for people; more often than this per slot it only costs.
SHOW_SECONDS = 0.2


def register_ticket(app: Any, slots: Slots, on_drain: Callable[[], None] = lambda: None) -> None:
    """Let tickets wake the slots of this process, and let the slots stop claiming when Celery stops consuming.

    ``on_drain`` runs then, in a thread, since Celery calls from inside its signal handler.
    """

    def work(self: Any) -> dict[str, Any]:
        lane = Lane(self.request.delivery_info["routing_key"].partition(".")[0])
        shown = 0.0

        def show(claim: Claim) -> None:
            nonlocal shown
            if time.monotonic() - shown >= SHOW_SECONDS:
                _show_in_flower(self, lane, claim)
                shown = time.monotonic()

        return slots.serve(lane, show)

    app.task(work, name=TASK, bind=True, resultrepr_maxsize=MAX_SHOWN)

    def on_shutdown(**_: object) -> None:
        slots.drain()
        threading.Thread(target=on_drain, name="drain", daemon=True).start()

    shutting_down: Any = celery.signals.worker_shutting_down
    shutting_down.connect(on_shutdown, weak=False)


def _show_in_flower(task: Any, lane: Lane, claim: Claim) -> None:
    """Replace the ticket's arguments in Flower by the job that it runs now; ids only, never text.

    The request's own dispatcher sends with it whatever else happens in the same turn of Celery's loop.
    """
    kwargs = {"step": claim.step or claim.task, "lane": lane.value, "tenant": claim.tenant}
    state: Any = celery.worker.state
    try:
        state.requests[task.request.id].send_event("task-started", args=repr((claim.root,)), kwargs=repr(kwargs))
    except Exception as error:  # what Flower shows must never fail a job
        log.warning("flower: %s", type(error).__name__)
