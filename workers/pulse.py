"""The pulse of a worker process: renews the leases of what moves, learns of cancellations, announces the worker."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable

from services.errors import CasemillError, Unavailable
from services.fleet import Announcement, Fleet
from services.jobs import Claim
from services.lifecycle import Lifecycle
from workers.execution import Execution
from workers.liveness import DEAF_SECONDS

log = logging.getLogger(__name__)

ANNOUNCE_EVERY = 3
# Beyond any step of a model that moves: a long prompt on a slow CPU, or weights read from a cold disk.
STALL_SECONDS = 120.0


class Pulse(threading.Thread):
    """One thread a process, one beat a second (faster under short leases)."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        fleet: Fleet,
        describe: Callable[[int], Announcement],
        stalled: Callable[[], float],
        deaf: Callable[[], float] = lambda: 0.0,
        lost: Callable[[], CasemillError | None] = lambda: None,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """``stalled`` and ``deaf`` answer for how many seconds the engine has not moved and tickets were left lying.

        ``lost`` answers why the process has no GPU any more, if that is so: then it is ended in order, by SIGTERM.
        ``look`` is called with each announcement.
        """
        super().__init__(name="pulse", daemon=True)
        self._lifecycle = lifecycle
        self._fleet = fleet
        self._describe = describe
        self._stalled = stalled
        self._deaf = deaf
        self._lost = lost
        self._look = look
        self._ending: float | None = None
        self._period = min(1.0, lifecycle.settings.lease_seconds / 4)
        self._executions: dict[str, Execution] = {}
        self._lock = threading.Lock()
        self._announcing = threading.Lock()
        self._stop_event = threading.Event()

    def add(self, execution: Execution) -> None:
        """Keep the lease of an execution alive while it moves."""
        with self._lock:
            self._executions[execution.claim.member] = execution

    def remove(self, claims: Iterable[Claim]) -> None:
        """Forget executions whose ends are delivered, or never will be."""
        with self._lock:
            for claim in claims:
                self._executions.pop(claim.member, None)

    @property
    def busy(self) -> int:
        """Executions under way or to be delivered."""
        return len(self._executions)

    def run(self) -> None:
        """Beat until :meth:`stop`; an outage of Redis is waited out."""
        beats = 0
        while True:
            self._try(self._beat)
            if self._stalled() > STALL_SECONDS:
                # A native call that never returns cannot be stopped from here. The supervisor starts a new process;
                # the leases of this one have run out or are reaped.
                log.critical("the engine has not moved for %.0f s; this process ends", self._stalled())
                os._exit(70)
            self._try(self._end_if_lost)
            if beats % ANNOUNCE_EVERY == 0:
                self._try(self._listen)
                self._try(self._look)
                self.announce()
            beats += 1
            if self._stop_event.wait(self._period):
                return

    def _end_if_lost(self) -> None:
        """Let Celery end the process when what runs is handed back; one that does not end in time is ended."""
        if not (error := self._lost()):
            return
        if self._ending is None:
            log.critical("%s", error.detail)
            self._ending = time.monotonic()
            os.kill(os.getpid(), signal.SIGTERM)
        elif time.monotonic() - self._ending > STALL_SECONDS:
            os._exit(70)

    def _listen(self) -> None:
        if (seconds := self._deaf()) > DEAF_SECONDS:
            log.critical("tickets wait for %.0f s, slots are free and Celery takes none; this process ends", seconds)
            os._exit(70)

    def announce(self) -> None:
        """Say at once what the worker is now; what was described first is also said first."""
        with self._announcing:
            self._try(lambda: self._fleet.announce(self._describe(self.busy)))

    def stop(self) -> None:
        """End the thread."""
        self._stop_event.set()

    @staticmethod
    def _try(action: Callable[[], None]) -> None:
        """A worker without a pulse would run jobs whose leases end, so the thread outlives any surprise."""
        try:
            action()
        except Unavailable as error:
            log.warning("pulse: %s", error)
        except Exception:
            log.exception("pulse")

    def _beat(self) -> None:
        with self._lock:
            executions = dict(self._executions)
        if not executions:
            return
        moved = [member for member, execution in executions.items() if execution.moved()]
        still = [member for member in executions if member not in set(moved)]
        for member, verdict in self._lifecycle.renew(moved, still).items():
            if executions[member].reason is None and not executions[member].over:
                log.warning("job %s: %s", executions[member].claim.id, verdict)
            executions[member].stop(verdict)
