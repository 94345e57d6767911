"""What an engine counts reaches Prometheus whole: through the announcement, in families with cumulative buckets."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

from prometheus_client.core import Metric

from services import metrics
from services.fleet import Announcement, EngineView, Fleet
from services.keys import Keys
from services.timings import TOKEN_BOUNDS
from workers.engines.meter import Meter


def busy_meter() -> Meter:
    meter = Meter(sequences=4, running=0, cells=2048, used_cells=0)
    meter.step(tokens=100, running=1, used_cells=100)
    meter.first_token(0, tokens_in=100, seconds=0.3)
    for seconds in (0.005, 0.006, 90.0):
        meter.step(tokens=1, running=2, used_cells=103)
        meter.next_token(0, seconds)
    meter.first_token(4, tokens_in=7, seconds=2.0)
    meter.prefix_hit(64)
    meter.parked(restorable=True)
    meter.parked(restorable=False)
    return meter


def carried(view: EngineView) -> list[tuple[str, EngineView]]:
    """The view as the gateway reads it."""
    sent = Announcement("w1", "here", 1, "cpu", "", (), 1, 0, (), (), 0, "llama", "0", 0.0, engines=(view,))
    text = json.dumps(asdict(sent))
    assert len(text) < 2000
    client: Any = SimpleNamespace(zrange=lambda *_: ["w1"], mget=lambda _: [text])
    (read,) = Fleet(client, Keys("test:")).workers()
    assert read == sent
    return [(read.id, each) for each in read.engines]


def samples(families: list[Metric]) -> dict[tuple[str, ...], float]:
    """By the sample's name and what its labels say beyond the worker and the model."""
    found: dict[tuple[str, ...], float] = {}
    for family in families:
        for sample in family.samples:
            assert (sample.labels.pop("worker"), sample.labels.pop("model")) == ("w1", "tiny")
            found[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def test_what_an_engine_counted_is_what_prometheus_reads() -> None:
    found = samples(list(metrics._engines(carried(busy_meter().view("tiny", 1.5)))))
    one = {name.removeprefix("casemill_engine_"): value for (name, *rest), value in found.items() if not rest}
    assert one == {
        "tokens_in_total": 107, "tokens_out_total": 5, "texts_total": 0, "steps_total": 4, "step_tokens_total": 103,
        "prefix_hits_total": 1, "prefix_tokens_total": 64, "parked_total": 2, "parked_lost_total": 1,
        "sequences": 4, "running_sequences": 2, "cells": 2048, "used_cells": 103, "load_seconds": 1.5,
    }  # fmt: skip
    assert found["casemill_first_token_seconds_count", "critical"] == 1
    assert found["casemill_first_token_seconds_sum", "bulk"] == 2.0
    between = {key[1]: value for key, value in found.items() if key[0] == "casemill_between_tokens_seconds_bucket"}
    assert between == {str(bound): (1 if bound == 0.005 else 2) for bound in TOKEN_BOUNDS} | {"+Inf": 3}
    assert found["casemill_between_tokens_seconds_sum", "critical"] == 90.011


def test_nothing_runs_in_an_idle_engine() -> None:
    meter = busy_meter()
    meter.idle()
    gauges = meter.view("tiny", 0.0).gauges
    assert gauges == {"sequences": 4, "running": 0, "cells": 2048, "used_cells": 0}


def test_an_embedding_engine_has_counts_and_no_cache() -> None:
    meter = Meter()
    meter.embedded(texts=3, tokens=40)
    found = samples(list(metrics._engines(carried(meter.view("tiny", 0.0)))))
    assert found["casemill_engine_texts_total",] == 3
    assert found["casemill_engine_tokens_in_total",] == found["casemill_engine_step_tokens_total",] == 40
    assert ("casemill_engine_cells",) not in found


def test_times_under_other_bounds_are_left_out() -> None:
    view = busy_meter().view("tiny", 0.0)
    odd = replace(view, times=tuple(replace(times, buckets=times.buckets[1:]) for times in view.times))
    names = {name for name, *_ in samples(list(metrics._engines(carried(odd))))}
    assert not [name for name in names if name.endswith("_bucket")]
    assert "casemill_engine_tokens_out_total" in names
