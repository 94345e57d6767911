"""What a client sees of one job: its record with place, time and, once it has succeeded, its result."""

from __future__ import annotations

from gateway.following import result_of
from gateway.schemas import JobView
from gateway.state import Gateway
from services.errors import Permanent
from services.jobs import Job, State


def whole_view(gateway: Gateway, job: Job) -> JobView:
    """The view of a record with all that belongs to it; raises ``Unavailable`` when that cannot be read."""
    position = gateway.lifecycle.position(job)
    view = JobView.of(job, position=position, eta=_eta(gateway, job, position))
    if job.state is State.SUCCEEDED:
        try:
            view.result = result_of(gateway, job)
        except Permanent as error:  # erased with its document, or older than results are kept
            view.problem = error.problem()
    return view


def _eta(gateway: Gateway, job: Job, position: int | None) -> float | None:
    """Seconds until a queued job starts: the jobs before it × the lane's measured time ÷ its live slots."""
    if position is None:
        return None
    slots = sum(worker.slots for worker in gateway.fleet.workers() if job.lane in worker.lanes)
    took = gateway.lifecycle.service_seconds().get(job.lane)
    return round(position * took / slots, 3) if slots and took is not None else None
