"""Every metric of Casemill, named once, read from Redis when Prometheus asks."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from services.capacity import Capacity
from services.fleet import Announcement, EngineView, Fleet
from services.jobs import Device, Lane, Priority, State
from services.lifecycle import Lifecycle
from services.models import FAKE
from services.redis_client import redis_errors, server_info
from services.tickets import ticket_queue
from services.timings import TOKEN_BOUNDS

_TOTALS = {
    "jobs.submitted": ("casemill_jobs_submitted", "Jobs accepted."),
    "retries": ("casemill_retries", "Executions that failed for a passing reason and were scheduled again."),
    "replays": ("casemill_replays", "Jobs given a new life after they had failed, been cancelled or expired."),
    "extra_executions": ("casemill_extra_executions", "Executions beyond a job's first."),
    "leases_lost": ("casemill_leases_lost", "Leases that ran out or whose worker died."),
    "stale_results": ("casemill_stale_results", "Results discarded because their attempt had lost its lease."),
    "tickets": ("casemill_tickets", "Tickets written."),
}
# What becomes of messages to webhooks; `disabled` were not sent, as their endpoint was.
_DELIVERIES = ("succeeded", "retried", "failed", "disabled", "cancelled")
_STANDING = {
    "dead_letters": ("casemill_dead_letters", "Jobs of all tenants that failed for good and were not replayed."),
    "scheduled": ("casemill_jobs_scheduled", "Jobs and runs that are not due yet, retries among them."),
    "deliveries_scheduled": ("casemill_webhook_deliveries_scheduled", "Messages to webhooks that will be tried again."),
    "leases": ("casemill_leases_held", "Jobs and steps that a worker holds."),
}
_TIMINGS = {
    "wait": ("casemill_wait_seconds", "Time in the backlog before each claim."),
    "run": ("casemill_run_seconds", "Time from claim to end of each execution that counted."),
}
_WORKERS: dict[str, tuple[str, Callable[[Announcement], float]]] = {
    "casemill_worker_slots": ("Slots of a live worker.", lambda worker: worker.slots),
    "casemill_worker_busy_slots": ("Slots at work.", lambda worker: worker.busy),
    "casemill_worker_reserved_slots": ("Slots for urgent work alone.", lambda worker: worker.reserved),
    "casemill_worker_busy_reserved_slots": ("Such slots at work.", lambda worker: worker.reserved_busy),
    "casemill_worker_memory_bytes": ("Resident memory.", lambda worker: worker.memory),
    "casemill_worker_stalled_seconds": (
        "How long tickets have waited that its free slots should have taken.",
        lambda worker: worker.stalled,
    ),
    "casemill_worker_loaded_models": (
        "Models in memory.",
        lambda worker: sum(model.loaded for model in worker.models),
    ),
}
# By what the engine counts under; from 0 with each load.
_ENGINE_COUNTS = {
    "tokens_in": ("casemill_engine_tokens_in", "Tokens of prompts and of embedded texts."),
    "tokens_out": ("casemill_engine_tokens_out", "Tokens written."),
    "texts": ("casemill_engine_texts", "Texts embedded."),
    "steps": ("casemill_engine_steps", "Batches computed."),
    "step_tokens": ("casemill_engine_step_tokens", "Tokens of all batches."),
    "prefix_hits": ("casemill_engine_prefix_hits", "Prompts that began like one that is kept."),
    "prefix_tokens": ("casemill_engine_prefix_tokens", "Tokens that were not computed for that reason."),
    "parked": ("casemill_engine_parked", "Sequences that gave up their place to more urgent ones or to a full cache."),
    "parked_lost": ("casemill_engine_parked_lost", "Those of them that had to be computed again."),
}
_ENGINE_GAUGES = {
    "sequences": ("casemill_engine_sequences", "Sequences that the engine computes at once at most."),
    "running": ("casemill_engine_running_sequences", "Sequences that it computes now."),
    "cells": ("casemill_engine_cells", "Tokens that its cache holds at most."),
    "used_cells": ("casemill_engine_used_cells", "Tokens of running sequences in the cache."),
}
_TOKEN_TIMES = {
    "first_token": ("casemill_first_token_seconds", "Time from a request to its first token, in the engine."),
    "between_tokens": ("casemill_between_tokens_seconds", "Time from one token of a sequence to the next."),
}
# Which workers serve what waits for a device class.
_SERVING = {Device.CPU: {Device.CPU}, Device.GPU: {Device.GPU}, Device.ANY: {Device.CPU, Device.GPU}}


class _Installation(Collector):
    def __init__(self, lifecycle: Lifecycle, fleet: Fleet) -> None:
        self._lifecycle = lifecycle
        self._fleet = fleet

    def collect(self) -> Iterable[Metric]:
        workers = self._fleet.workers()
        yield from self._jobs()
        yield from self._backlog()
        yield from self._models(workers)
        yield from self._timings()
        yield from _fleet(workers)
        yield from _engines([(worker.id, view) for worker in workers for view in worker.engines])
        yield self._desired()
        yield from self._host()

    def _jobs(self) -> Iterable[Metric]:
        counters, standing = self._lifecycle.counters(), self._lifecycle.standing()
        for counter, (name, text) in _TOTALS.items():
            yield CounterMetricFamily(name, text, value=counters.get(counter, 0))
        ended = CounterMetricFamily("casemill_jobs_ended", "Jobs and steps that ended, by state.", labels=["state"])
        for state in State:
            if state.final:
                ended.add_metric([state], counters.get(f"jobs.{state}", 0))
        yield ended
        sent = CounterMetricFamily(
            "casemill_webhook_deliveries", "Messages to webhooks and attempts to be repeated.", labels=["outcome"]
        )
        for outcome in _DELIVERIES:
            sent.add_metric([outcome], counters.get(f"deliveries.{outcome}", 0))
        yield sent
        for gauge, (name, text) in _STANDING.items():
            yield GaugeMetricFamily(name, text, value=standing[gauge])

    def _backlog(self) -> Iterable[Metric]:
        labels = ["lane", "device", "priority"]
        depth = GaugeMetricFamily("casemill_backlog_jobs", "Jobs waiting.", labels=labels)
        oldest = GaugeMetricFamily(
            "casemill_backlog_oldest_seconds", "How long the oldest job of the backlog has waited.", labels=labels
        )
        for cell, (count, age) in self._lifecycle.depths().items():
            depth.add_metric(list(cell), count)
            oldest.add_metric(list(cell), age)
        yield depth
        yield oldest
        tickets = GaugeMetricFamily("casemill_tickets_waiting", "Tickets that no slot has taken.", labels=["queue"])
        queues = [ticket_queue(lane, device) for lane in Lane for device in Device]
        for queue, count in self._lifecycle.tickets(queues).items():
            tickets.add_metric([queue], count)
        yield tickets

    def _models(self, workers: list[Announcement]) -> Iterable[Metric]:
        labels = ["lane", "device", "model"]
        depth = GaugeMetricFamily("casemill_model_jobs", "Jobs waiting that need a model.", labels=labels)
        having = GaugeMetricFamily(
            "casemill_model_workers", "Live workers that have a model which jobs wait for.", labels=labels
        )
        for (lane, device, model), count in self._lifecycle.model_depths().items():
            depth.add_metric([lane, device, model], count)
            able = [worker for worker in _able(workers, lane, device) if _has(worker, lane, model)]
            having.add_metric([lane, device, model], len(able))
        yield depth
        yield having

    def _timings(self) -> Iterable[Metric]:
        # Without sums: those would cost each claim and each end a second write.
        families = {
            what: HistogramMetricFamily(name, text, labels=["lane", "priority"])
            for what, (name, text) in _TIMINGS.items()
        }
        for (what, lane, priority), histogram in self._lifecycle.timings().items():
            buckets = [("+Inf" if math.isinf(bound) else str(float(bound)), count) for bound, count in histogram]
            families[what].add_metric([lane, priority], buckets, sum_value=None)
        yield from families.values()

    def _desired(self) -> Metric:
        desired = GaugeMetricFamily(
            "casemill_desired_workers", "Workers that there should be, for whatever scales them.", labels=["kind"]
        )
        for scale in Capacity(self._lifecycle).scales():
            desired.add_metric([scale.kind], scale.desired)
        return desired

    def _host(self) -> Iterable[Metric]:
        client = self._lifecycle.client
        with redis_errors():
            memory = client.info("memory")["used_memory"]
        yield GaugeMetricFamily("casemill_redis_memory_bytes", "Memory that the Redis server uses.", value=memory)
        yield GaugeMetricFamily(
            "casemill_redis_durable",
            "1 when the server syncs every write before it answers, 0 when it does not or does not tell.",
            value=server_info(client)["durable"] == "yes",
        )
        yield GaugeMetricFamily(
            "casemill_data_free_bytes",
            "Free space where this gateway keeps documents and results.",
            value=shutil.disk_usage(self._lifecycle.settings.data_dir).free,
        )


def _able(workers: list[Announcement], lane: Lane, device: Device) -> list[Announcement]:
    return [worker for worker in workers if lane in worker.lanes and worker.device in _SERVING[device]]


def _has(worker: Announcement, lane: Lane, model: str) -> bool:
    """Whether it can load a model; a kind of model has the name of its lane, and the fake engine plays any."""
    return worker.engine == FAKE or any(known.name == model and known.kind == lane for known in worker.models)


def _fleet(workers: list[Announcement]) -> Iterable[Metric]:
    serving = GaugeMetricFamily(
        "casemill_lane_workers", "Live workers that serve what waits in a lane for a device.", labels=["lane", "device"]
    )
    for lane in Lane:
        for device in Device:
            serving.add_metric([lane, device], len(_able(workers, lane, device)))
    yield serving
    for name, (text, value) in _WORKERS.items():
        family = GaugeMetricFamily(name, text, labels=["worker", "device"])
        for worker in workers:
            family.add_metric([worker.id, worker.device], value(worker))
        yield family


def _engines(views: list[tuple[str, EngineView]]) -> Iterable[Metric]:
    labels = ["worker", "model"]
    for key, (name, text) in _ENGINE_COUNTS.items():
        counter = CounterMetricFamily(name, text, labels=labels)
        for worker, view in views:
            counter.add_metric([worker, view.model], view.counts.get(key, 0))
        yield counter
    for key, (name, text) in _ENGINE_GAUGES.items():
        gauge = GaugeMetricFamily(name, text, labels=labels)
        for worker, view in views:
            if key in view.gauges:
                gauge.add_metric([worker, view.model], view.gauges[key])
        yield gauge
    load = GaugeMetricFamily("casemill_engine_load_seconds", "How long loading the model took.", labels=labels)
    for worker, view in views:
        load.add_metric([worker, view.model], view.load_seconds)
    yield load
    for what, (name, text) in _TOKEN_TIMES.items():
        histogram = HistogramMetricFamily(name, text, labels=[*labels, "priority"])
        for worker, view in views:
            for times in view.times:
                # A worker of another version may have other bounds.
                if times.what == what and len(times.buckets) == len(TOKEN_BOUNDS) + 1:
                    bounds = [*map(str, TOKEN_BOUNDS), "+Inf"]
                    buckets = list(zip(bounds, accumulate(times.buckets), strict=True))
                    priority = list(Priority)[times.priority]
                    histogram.add_metric([worker, view.model, priority], buckets, sum_value=times.sum)
        yield histogram


def exposition(lifecycle: Lifecycle, fleet: Fleet) -> tuple[str, bytes]:
    """Content type and text of all metrics now; raises ``Unavailable`` when Redis is away."""
    registry = CollectorRegistry()
    registry.register(_Installation(lifecycle, fleet))
    return CONTENT_TYPE_LATEST, generate_latest(registry)
