"""Every metric of Casemill, named once, read from Redis when Prometheus asks."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from services.capacity import Capacity
from services.fleet import Fleet
from services.jobs import State
from services.lifecycle import Lifecycle

_TOTALS = {
    "jobs.submitted": ("casemill_jobs_submitted", "Jobs accepted."),
    "retries": ("casemill_retries", "Executions that failed for a passing reason and were scheduled again."),
    "replays": ("casemill_replays", "Jobs given a new life after they had failed, been cancelled or expired."),
    "extra_executions": ("casemill_extra_executions", "Executions beyond a job's first."),
    "leases_lost": ("casemill_leases_lost", "Leases that ran out or whose worker died."),
    "stale_results": ("casemill_stale_results", "Results discarded because their attempt had lost its lease."),
    "tickets": ("casemill_tickets", "Tickets written."),
}


class _Installation(Collector):
    def __init__(self, lifecycle: Lifecycle, fleet: Fleet) -> None:
        self._lifecycle = lifecycle
        self._fleet = fleet

    def collect(self) -> Iterable[Metric]:
        counters = self._lifecycle.counters()
        for counter, (name, text) in _TOTALS.items():
            yield CounterMetricFamily(name, text, value=counters.get(counter, 0))
        ended = CounterMetricFamily("casemill_jobs_ended", "Jobs and steps that ended, by state.", labels=["state"])
        for state in State:
            if state.final:
                ended.add_metric([state], counters.get(f"jobs.{state}", 0))
        yield ended
        labels = ["lane", "device", "priority"]
        depth = GaugeMetricFamily("casemill_backlog_jobs", "Jobs waiting.", labels=labels)
        oldest = GaugeMetricFamily(
            "casemill_backlog_oldest_seconds", "How long the head of the backlog has waited.", labels=labels
        )
        for cell, (count, age) in self._lifecycle.depths().items():
            depth.add_metric(list(cell), count)
            oldest.add_metric(list(cell), age)
        yield depth
        yield oldest
        slots = GaugeMetricFamily("casemill_worker_slots", "Slots of a live worker.", labels=["worker", "device"])
        busy = GaugeMetricFamily("casemill_worker_busy_slots", "Slots at work.", labels=["worker", "device"])
        memory = GaugeMetricFamily("casemill_worker_memory_bytes", "Resident memory.", labels=["worker", "device"])
        for worker in self._fleet.workers():
            name = [worker.id, worker.device]
            slots.add_metric(name, worker.slots)
            busy.add_metric(name, worker.busy)
            memory.add_metric(name, worker.memory)
        yield slots
        yield busy
        yield memory
        desired = GaugeMetricFamily(
            "casemill_desired_workers", "Workers that there should be, for whatever scales them.", labels=["kind"]
        )
        for scale in Capacity(self._lifecycle).scales():
            desired.add_metric([scale.kind], scale.desired)
        yield desired


def exposition(lifecycle: Lifecycle, fleet: Fleet) -> tuple[str, bytes]:
    """Content type and text of all metrics now; raises ``Unavailable`` when Redis is away."""
    registry = CollectorRegistry()
    registry.register(_Installation(lifecycle, fleet))
    return CONTENT_TYPE_LATEST, generate_latest(registry)
