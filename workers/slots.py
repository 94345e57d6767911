"""A slot's work: woken by a ticket, it claims the best job, runs it, ends it and claims the next until time is up."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from services.errors import CasemillError, DeviceLost, Transient, Unavailable
from services.jobs import Choice, Claim, Completion, Device, Lane, Outcome, Priority
from services.lifecycle import Lifecycle
from workers.ends import Ends
from workers.execution import Execution, Stopped
from workers.pulse import Pulse
from workers.tally import Tally

log = logging.getLogger(__name__)

# One ticket serves small jobs for this long, then leaves its place in Celery's view to the next.
DRAIN_SECONDS = 2.0
# Before the first retry, doubled at each one that follows in the same life of a job, to some four minutes.
RETRY_SECONDS, RETRY_DOUBLINGS = 2.0, 7
# Under placement a job that takes longer than this is placed by itself; smaller ones stay with the slot that is awake.
SMALL_SECONDS = 0.25

# Critical and high.
RESERVED_RANKS = 2

Task = Callable[[Execution], dict[str, Any]]


def one_at_a_time(_: Lane) -> int:
    """Claims of lanes whose jobs take long: nothing waits in a slot that another could run."""
    return 1


@dataclass(frozen=True, slots=True)
class Work:
    """What a process can do: its tasks by name, how it keeps a result, and the models of a lane that it can load.

    ``keep`` answers the result's blob; ``models`` maps names to whether they are loaded, ``None`` where none is needed;
    ``batch`` is how many jobs of a lane one claim takes, more than one where jobs are short.
    """

    tasks: Mapping[str, Task]
    keep: Callable[[Claim, dict[str, Any]], str]
    models: Callable[[Lane], Mapping[str, bool] | None]
    batch: Callable[[Lane], int] = one_at_a_time


_OUTCOMES: dict[str, Outcome] = {"cancel": "cancelled", "lost": "cancelled", "drain": "released"}


class Slots:
    """Runs claims for one worker process; called from many threads at once.

    ``seats`` slots of the lane ``generate`` take any priority; those beyond take critical and high work alone, so that
    urgent work reaches the engine while bulk fills it. ``placed``: wake-ups are dealt out to workers, so a slot gives
    up its turn after a job that is not small. ``stalled`` answers for how many seconds the engine has not moved.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        pulse: Pulse,
        work: Work,
        *,
        worker: str,
        device: Device,
        seats: int,
        placed: bool = False,
        stalled: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._lifecycle = lifecycle
        self._pulse = pulse
        self._do = work
        self._worker = worker
        self._devices = (device, Device.ANY)
        self._seats = seats
        self._placed = placed
        self._stalled = stalled
        self._busy: Counter[Lane] = Counter()
        self._arrived = 0
        self._lock = threading.Lock()
        self._draining = threading.Event()

    @property
    def draining(self) -> bool:
        """Whether nothing more is claimed."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Claim nothing more; what runs is handed back to the backlog at its next step."""
        self._draining.set()

    @property
    def arrived(self) -> int:
        """Tickets that Celery has brought so far."""
        return self._arrived

    @property
    def busy(self) -> int:
        """Slots that serve a ticket now."""
        return self._busy.total()

    @property
    def reserved_busy(self) -> int:
        """Slots of the lane ``generate`` at work beyond those that take any priority."""
        return max(0, self._busy[Lane.GENERATE] - self._seats)

    def serve(self, lane: Lane, on_claim: Callable[[Claim], None]) -> dict[str, Any]:
        """Work until the lane is empty or time is up; answers what Flower shows as the ticket's result."""
        with self._lock:
            self._busy[lane] += 1
            self._arrived += 1
        try:
            return self._serve(lane, on_claim)
        finally:
            with self._lock:
                self._busy[lane] -= 1

    def _serve(self, lane: Lane, on_claim: Callable[[Claim], None]) -> dict[str, Any]:
        until = time.monotonic() + DRAIN_SECONDS
        tally = Tally()
        n = self._do.batch(lane)
        claims = [] if self._draining.is_set() else self._work(lane, [], n, tally)
        while claims:
            on_claim(claims[0])
            began = time.monotonic()
            done = self._execute_all(lane, claims, tally)
            now, on = time.monotonic(), not self._draining.is_set()
            stay = self._placed and on and now - began < SMALL_SECONDS
            again = on and now < until and (stay or not self._placed)
            claims = self._work(lane, done, n if again else 0, tally, stay=stay)
        return tally.view()

    def _execute_all(self, lane: Lane, claims: Sequence[Claim], tally: Tally) -> list[Completion]:
        """Run claims one after the other; answers the ends that are left to deliver.

        Those that wait keep their leases as long as the one before them moves, and those that have ended until they are
        delivered.
        """
        executions = [Execution(claim, self._lifecycle, self._draining.is_set) for claim in claims]
        for execution, behind in pairwise(executions):
            execution.behind = behind
        for execution in executions:
            self._pulse.add(execution)
        ends = Ends(lambda done: self._work(lane, done, 0, tally, goes_on=True))
        try:
            for execution in executions[:-1]:
                ends.add(self._execute(execution))
            last = self._execute(executions[-1])
        except BaseException:  # nobody delivers them any more, so their leases shall run out
            self._pulse.remove(claims)
            raise
        return [*ends.take(), last]

    def _work(
        self,
        lane: Lane,
        done: Sequence[Completion],
        n: int,
        tally: Tally,
        *,
        stay: bool = False,
        goes_on: bool = False,
    ) -> list[Claim]:
        """Deliver what is done, whose leases are kept until then, and claim the next."""
        try:
            return self._exchange(lane, done, n, tally, stay=stay, goes_on=goes_on)
        finally:
            self._pulse.remove([completion.claim for completion in done])

    def _exchange(
        self, lane: Lane, done: Sequence[Completion], n: int, tally: Tally, *, stay: bool, goes_on: bool
    ) -> list[Claim]:
        """The script, repeated while Redis is away as long as there is an end to deliver; the fence makes that safe."""
        away = 0.0
        try:
            models = self._do.models(lane) if n else None
        except CasemillError as error:  # what is done must be delivered, whatever keeps the slot from going on
            log.error("no claim: %s", error)
            n, models = 0, None
        while True:
            try:
                states, claims = self._lifecycle.work(
                    done,
                    lane=lane,
                    devices=self._devices,
                    worker=self._worker,
                    n=n,
                    choice=Choice(self._ranks(lane), models, self._engine_moves()),
                    stay=stay,
                    goes_on=goes_on,
                )
            except Unavailable:
                if not done or away > self._lifecycle.settings.lease_seconds:
                    tally.undelivered(done)
                    return []  # the caretaker wakes a slot again; unfinished claims run out of their leases
                time.sleep(0.5)
                away += 0.5
                continue
            tally.add(done, states)
            for completion, state in zip(done, states, strict=True):
                if state is None:
                    log.warning("job %s: result of attempt %d discarded", completion.claim.id, completion.claim.attempt)
            return claims

    def _engine_moves(self) -> bool:
        """Whether nothing tells that this process may end soon, so that a job tried here ends it by itself alone."""
        return self._stalled() < self._lifecycle.settings.lease_seconds / 2

    def _ranks(self, lane: Lane) -> int:
        """How many priorities, from the most urgent, this slot may claim now."""
        reserved = lane is Lane.GENERATE and self._busy[lane] > self._seats
        return RESERVED_RANKS if reserved else len(Priority)

    def _execute(self, execution: Execution) -> Completion:
        claim = execution.claim
        started = time.monotonic()
        try:
            execution.check()
            task = self._do.tasks.get(claim.task)
            if task is None:
                raise Transient(
                    f"this worker has no task {claim.task!r}: it runs an older version; restart it", code="task_unknown"
                )
            result = task(execution)
            execution.flush()
            reused = bool(result.get("reused"))
            completion = Completion(claim, "succeeded", result=self._do.keep(claim, result), reused=reused)
        except Stopped:
            completion = Completion(claim, _OUTCOMES[execution.reason or "cancel"])
        except Transient as error:
            if isinstance(error, DeviceLost):  # any other job would fail here too, before the pulse ends the process
                self.drain()
            usual = RETRY_SECONDS * 2 ** min(claim.tries - 1, RETRY_DOUBLINGS)
            wait = usual if error.retry_after is None else error.retry_after
            completion = Completion(claim, "retry", problem=error.problem(), retry_after=wait)
        except CasemillError as error:
            completion = Completion(claim, "failed", problem=error.problem())
        except Exception as error:  # the job fails, the worker lives
            # Messages of foreign exceptions may quote a document; the traceback's frames do not.
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("job %s: %s\n%s", claim.id, type(error).__name__, frames)
            unexpected = CasemillError(
                f"{type(error).__name__} in {claim.task}; the worker's log has the traceback under job {claim.id}"
            )
            completion = Completion(claim, "failed", problem=unexpected.problem())
        finally:
            execution.close()
        log.info(
            "job %s %s %s in %.3f s (attempt %d, request %s)",
            claim.id,
            claim.task,
            completion.outcome,
            time.monotonic() - started,
            claim.attempt,
            claim.request_id or "-",
        )
        return completion
