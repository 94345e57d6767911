"""A minute of the soak: mixed load while workers and the server are killed; nothing is lost, doubled or left behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from services.jobs import Completion, Device, JobType, Lane, Submission
from services.lifecycle import Lifecycle
from tests.benchmarks.soak import soak
from tests.chaos.ledger import Ledger

JOB = Submission("acme", JobType.ANALYZE, {})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_minute_of_mixed_load_under_kills(tmp_path: Path) -> None:
    figures = soak(tmp_path, 60)
    assert {name: figures[name] for name in ("lost", "doubled", "leaked_keys")} == {
        "lost": 0,
        "doubled": 0,
        "leaked_keys": 0,
    }


def test_the_ledger_sees_what_is_lost_and_what_is_doubled(queue: Lifecycle) -> None:
    raw: Any = queue.client
    ledger = Ledger(queue)
    good, gone, silent, running, twice, stale = (ledger.submit(JOB)[1] for _ in range(6))
    ledger.repeat(0)
    stranger = queue.submit(JOB)[0].id
    for held in queue.work([], lane=Lane.ANALYZE, devices=(Device.ANY,), worker="w", n=7)[1]:
        if held.id != running:
            done = [Completion(held, "succeeded", result="res_9" if held.id == stale else "res_1")]
            queue.work(done, lane=Lane.ANALYZE, devices=(Device.ANY,), worker="w", n=0)
    assert not ledger.settled()
    raw.delete(queue.keys("job", tenant="acme", id=gone))
    raw.delete(queue.keys("events", tenant="acme", id=silent))
    name = queue.keys("events", tenant="acme", id=twice)
    raw.xadd(name, raw.xrevrange(name, count=1)[0][1])
    found = ledger.audit()
    assert set(found.lost) == {f"acme|{job}" for job in (gone, silent, running)}
    assert set(found.doubled) == {f"acme|{job}" for job in (twice, stale, stranger)}
    assert queue.get("acme", good).result == "res_1"
