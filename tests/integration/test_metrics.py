"""What Prometheus reads: it parses, its buckets are cumulative, and its counts are those of the jobs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.fleet import Announcement, Fleet, WorkerModel
from services.jobs import Device, JobType, Lane, Priority
from services.lifecycle import Lifecycle
from services.metrics import exposition
from services.models import Catalog
from services.settings import Settings
from services.timings import BOUNDS
from tests.conftest import wait_until
from tests.integration.test_lifecycle import PROBLEM, claim, finish, submit, tidy
from tests.tiny_model import CONTEXT, write_tiny_model
from workers.engines.base import Sampling
from workers.engines.registry import Engines

__all__ = ["tidy"]


def samples(lifecycle: Lifecycle) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name of the sample and its label values, sorted by the labels' names."""
    _, body = exposition(lifecycle, Fleet(lifecycle.client, lifecycle.keys))
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def counts(histogram: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """By lane and priority the value of the last bucket; fails unless buckets are complete and cumulative."""
    rows: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for (lane, bound, priority), value in histogram.items():  # labels in order: lane, le, priority
        rows.setdefault((lane, priority), []).append((float(bound), value))
    for row in rows.values():
        assert [bound for bound, _ in row] == [*BOUNDS, float("inf")]
        values = [value for _, value in row]
        assert values == sorted(values)
    return {key: row[-1][1] for key, row in rows.items()}


def test_waits_and_runs_are_counted_once_for_each_claim_and_each_end(lifecycle: Lifecycle) -> None:
    for priority in (Priority.HIGH, Priority.HIGH, Priority.BULK):
        submit(lifecycle, priority=priority)
    embedded = submit(lifecycle, type=JobType.EMBED)
    held = [*claim(lifecycle, n=3), *claim(lifecycle, n=3)]
    for each in held:
        assert finish(lifecycle, each, result="res_1")
    assert not finish(lifecycle, held[0], result="res_1"), "an end that does not count is not counted"
    (first,) = claim(lifecycle, Lane.EMBED)
    finish(lifecycle, first, "retry", problem=PROBLEM, retry_after=0.01)
    wait_until(lambda: lifecycle.care()[1], what="the retry")
    (second,) = claim(lifecycle, Lane.EMBED)
    assert second.id == embedded

    found = samples(lifecycle)
    claimed: dict[Any, float] = {("generate", "high"): 2, ("generate", "bulk"): 1, ("embed", "normal"): 2}
    assert counts(found["casemill_wait_seconds_bucket"]) == claimed
    assert counts(found["casemill_run_seconds_bucket"]) == claimed | {("embed", "normal"): 1}
    finish(lifecycle, second, "failed", problem=PROBLEM)
    assert counts(samples(lifecycle)["casemill_run_seconds_bucket"]) == claimed


def test_a_wait_goes_into_the_bucket_of_its_length(lifecycle: Lifecycle) -> None:
    raw: Any = lifecycle.client
    for seconds in (7, 7, 400, 1e6, -5):  # the last one: the server's clock went back
        job = submit(lifecycle)
        record = lifecycle.keys("job", tenant="acme", id=job)
        raw.hset(record, "entered", float(raw.hget(record, "entered")) - seconds)
    assert len(claim(lifecycle, n=9)) == 5
    row = lifecycle.timings()["wait", Lane.GENERATE, Priority.NORMAL]
    alone = Counter({bound: count - before for (bound, count), (_, before) in zip(row, [(0, 0), *row], strict=False)})
    assert +alone == {0.002: 1, 10: 2, 900: 1, float("inf"): 1}


def test_counts_under_an_older_bound_are_kept(lifecycle: Lifecycle) -> None:
    raw: Any = lifecycle.client
    raw.hset(lifecycle.keys("timings"), "run|embed|low|7", 3)
    row = dict(lifecycle.timings()["run", Lane.EMBED, Priority.LOW])
    assert (row[5], row[10], row[86400]) == (0, 3, 3)


def test_gauges_say_how_it_stands(lifecycle: Lifecycle) -> None:
    fleet = Fleet(lifecycle.client, lifecycle.keys)
    lanes = ("generate", "embed")
    fleet.announce(Announcement("w1", "here", 1, "cpu", "", lanes, 6, 5, (), (), 99, "fake", "0", 0.0, 2, 1, 4.0))
    for tenant in ("acme", "other"):
        submit(lifecycle, tenant=tenant)
    for held in claim(lifecycle, n=2):
        finish(lifecycle, held, "failed", problem=PROBLEM)
    submit(lifecycle, not_before=4e9)
    submit(lifecycle, type=JobType.EMBED)
    submit(lifecycle, device=Device.GPU)
    claim(lifecycle, Lane.EMBED)

    found = samples(lifecycle)
    assert found["casemill_dead_letters"][()] == 2
    assert found["casemill_jobs_scheduled"][()] == 1
    assert found["casemill_leases_held"][()] == 1
    assert found["casemill_tickets_waiting"][("generate.gpu",)] == 1
    assert found["casemill_backlog_jobs"] == {("gpu", "generate", "normal"): 1}
    assert found["casemill_lane_workers"][("gpu", "generate")] == 0
    assert found["casemill_lane_workers"][("any", "generate")] == 1
    assert found["casemill_lane_workers"][("cpu", "extract")] == 0
    assert found["casemill_worker_reserved_slots"][("cpu", "w1")] == 2
    assert found["casemill_worker_busy_reserved_slots"][("cpu", "w1")] == 1
    assert found["casemill_worker_stalled_seconds"][("cpu", "w1")] == 4
    assert found["casemill_redis_durable"][()] == 1
    assert found["casemill_data_free_bytes"][()] > 0
    fleet.leave("w1")


def test_jobs_wait_for_models_that_workers_have_or_have_not(lifecycle: Lifecycle) -> None:
    fleet = Fleet(lifecycle.client, lifecycle.keys)
    lanes, models = ("generate", "embed"), (WorkerModel("llm", "generate", "", 1, loaded=False),)
    fleet.announce(Announcement("w1", "here", 1, "cpu", "", lanes, 1, 0, (), models, 0, "llama", "0", 0.0))
    for _ in range(2):
        submit(lifecycle, model="llm")
    submit(lifecycle, model="llm", device=Device.GPU)
    submit(lifecycle, type=JobType.EMBED, model="llm")
    submit(lifecycle, model="a|b")
    submit(lifecycle)
    claim(lifecycle)
    found = samples(lifecycle)
    assert found["casemill_model_jobs"] == {  # labels in order: device, lane, model
        ("any", "generate", "llm"): 1,
        ("gpu", "generate", "llm"): 1,
        ("any", "embed", "llm"): 1,
        ("any", "generate", "a|b"): 1,
    }
    workers = found["casemill_model_workers"]
    assert {cell for cell, count in workers.items() if count} == {("any", "generate", "llm")}
    assert workers.keys() == found["casemill_model_jobs"].keys()
    fleet.announce(Announcement("w2", "here", 1, "gpu", "", lanes, 1, 0, (), (), 0, "fake", "0", 0.0))
    assert set(samples(lifecycle)["casemill_model_workers"].values()) == {1, 2}
    for worker in ("w1", "w2"):
        fleet.leave(worker)


def test_a_claim_and_an_end_cost_one_count_each(lifecycle: Lifecycle) -> None:
    """MONITOR shows what scripts call; the hot ones may write to the histograms once each."""
    raw: Any = lifecycle.client
    submit(lifecycle)
    with raw.monitor() as monitor:
        (held,) = claim(lifecycle)
        finish(lifecycle, held, result="res_1")
        raw.echo("over")
        calls: list[str] = []
        while not calls or "over" not in calls[-1]:
            calls.append(monitor.next_command()["command"])
    timings = [call for call in calls if lifecycle.keys("timings") in call]
    assert [call.split()[0] for call in timings] == ["HINCRBY", "HINCRBY"], timings
    assert [call.split()[2].split("|")[0] for call in timings] == ["wait", "run"]


@pytest.mark.parametrize("outcome", ["cancelled", "released"])
def test_every_counted_end_is_a_run(lifecycle: Lifecycle, outcome: str) -> None:
    submit(lifecycle)
    (held,) = claim(lifecycle)
    finish(lifecycle, held, outcome)
    assert dict(lifecycle.timings()["run", Lane.GENERATE, Priority.NORMAL])[float("inf")] == 1


def test_what_a_loaded_model_wrote_is_counted_for_its_worker(lifecycle: Lifecycle, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    catalog.add(write_tiny_model(tmp_path / "tiny.gguf"), name="tiny")
    engines = Engines(Settings(data_dir=tmp_path, context_tokens=CONTEXT, sequences=2, gpu_layers=0), catalog, 1)
    fleet = Fleet(lifecycle.client, lifecycle.keys)
    try:
        assert engines.views() == ()
        with engines.lease_generation("tiny") as engine:
            done = engine.generate("alpha beta", Sampling(max_tokens=8), priority=Priority.HIGH.rank)
        views = engines.views()
    finally:
        engines.close()
    lanes = ("generate",)
    fleet.announce(Announcement("w1", "here", 1, "cpu", "", lanes, 1, 0, (), (), 0, "llama", "0", 0.0, engines=views))
    found = samples(lifecycle)
    assert found["casemill_engine_tokens_in_total"] == {("tiny", "w1"): done.tokens_in}
    written = found["casemill_engine_tokens_out_total"]["tiny", "w1"]
    assert written >= done.tokens_out > 1
    assert found["casemill_first_token_seconds_count"] == {("tiny", "high", "w1"): 1}
    assert found["casemill_between_tokens_seconds_count"] == {("tiny", "high", "w1"): written - 1}
    assert found["casemill_engine_load_seconds"]["tiny", "w1"] > 0
    fleet.leave("w1")
