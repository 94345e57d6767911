"""The hourly sweep of blobs: what a record names stays however old it is, what none names any more goes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from services.blobs import Blobs
from services.caretaker import Caretaker
from services.jobs import Lane
from services.lifecycle import Lifecycle
from services.runs import Runs
from services.settings import Settings
from tests.batch_house import House
from tests.integration.test_lifecycle import PROBLEM, claim, finish, submit, tidy
from tests.integration.test_runs import PLAN, runs, started, upload, work_off
from workers import toolbox

__all__ = ["runs", "tidy", "upload"]  # fixtures

pytestmark = pytest.mark.both_servers


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    return Blobs(settings.data_dir)


def sweep(lifecycle: Lifecycle, blobs: Blobs) -> None:
    """As an hour's end would, years later."""
    for path in blobs.root.glob("*/*/*"):
        os.utime(path, (0, 0))
    Caretaker(lifecycle, blobs)._sweep_blobs()


def gone(lifecycle: Lifecycle, job: str) -> None:
    """As after ``result_ttl``."""
    lifecycle.client.delete(
        lifecycle.keys("job", tenant="acme", id=job), lifecycle.keys("events", tenant="acme", id=job)
    )


def test_a_large_prompt_waits_as_long_as_its_job(lifecycle: Lifecycle, blobs: Blobs) -> None:
    blob = blobs.put("acme", "in", b'{"prompt": "long"}')
    job = submit(lifecycle, input={"blob": blob}, not_before=time.time() + 8 * 86400)
    sweep(lifecycle, blobs)
    assert blobs.exists("acme", blob)
    lifecycle.cancel("acme", job)
    gone(lifecycle, job)
    sweep(lifecycle, blobs)
    assert not blobs.exists("acme", blob)


def test_a_result_stays_as_long_as_its_job(lifecycle: Lifecycle, blobs: Blobs) -> None:
    job = submit(lifecycle)
    (held,) = claim(lifecycle)
    result = blobs.put("acme", "res", b"{}", scope=held.member)
    finish(lifecycle, held, result=result)
    sweep(lifecycle, blobs)
    assert blobs.exists("acme", result)
    gone(lifecycle, job)
    sweep(lifecycle, blobs)
    assert not blobs.exists("acme", result)


def test_results_of_steps_stay_with_a_parent_that_is_replayed(lifecycle: Lifecycle, blobs: Blobs) -> None:
    job = submit(lifecycle, plan=PLAN)
    (held,) = claim(lifecycle, Lane.EXTRACT)
    text = blobs.put("acme", "res", b"{}", scope=held.member)
    finish(lifecycle, held, result=text)
    gone(lifecycle, held.id)
    (held,) = claim(lifecycle, Lane.ANALYZE)
    finish(lifecycle, held, "failed", problem=PROBLEM)
    lifecycle.replay("acme", job)
    sweep(lifecycle, blobs)
    (held,) = claim(lifecycle, Lane.ANALYZE)
    assert blobs.exists("acme", held.outputs["extract"])
    finish(lifecycle, held, "failed", problem=PROBLEM)


def test_early_results_of_a_run_stay_until_it_is_gone(
    lifecycle: Lifecycle, blobs: Blobs, runs: Runs, upload: Callable[..., list[str]]
) -> None:
    run = started(runs, upload(2))
    (held,) = claim(lifecycle, Lane.EXTRACT)
    finish(lifecycle, held, result="res_0")
    (held,) = claim(lifecycle, Lane.ANALYZE)
    result = blobs.put("acme", "res", b"{}", scope=held.member)
    finish(lifecycle, held, result=result)
    runs.pause("acme", run.id)
    gone(lifecycle, held.root)
    gone(lifecycle, held.id)
    sweep(lifecycle, blobs)
    assert next(runs.documents("acme", run.id)).result == result
    assert blobs.exists("acme", result)
    runs.resume("acme", run.id)
    work_off(lifecycle)
    raw: Any = lifecycle.client
    raw.delete(lifecycle.keys("run_items", tenant="acme", id=run.id))
    sweep(lifecycle, blobs)
    assert not blobs.exists("acme", result)


def test_early_results_of_a_batch_stay_until_its_file_is_written(
    lifecycle: Lifecycle, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolbox, "INLINE_RESULT_BYTES", 0)
    house = House(lifecycle, blobs)
    batch = house.submit(3)
    assert house.work_off(3) == 3  # the check and two lines
    sweep(lifecycle, blobs)
    house.work_off()
    batch = house.batches.get("acme", batch.id)
    assert (batch.succeeded, len(house.rows(batch.output))) == (3, 3)
    sweep(lifecycle, blobs)
    assert not list(blobs.root.glob("*/*/res_*"))
    house.tidy()


def test_what_is_stored_again_while_the_sweep_looks_stays(blobs: Blobs) -> None:
    blob = blobs.put("acme", "in", b"asked again")
    left = blobs.path("acme", blob).with_name(".half-written")
    left.touch()
    for path in (left, blobs.path("acme", blob)):
        os.utime(path, (0, 0))

    def named() -> list[str]:
        blobs.put("acme", "in", b"asked again")
        return []

    assert blobs.sweep(("in",), 1, named) == 1
    assert blobs.exists("acme", blob)
    assert not left.exists()


def test_records_are_read_only_where_something_may_go(blobs: Blobs) -> None:
    blobs.put("acme", "in", b"new")

    def named() -> list[str]:
        raise AssertionError

    assert blobs.sweep(("in", "res"), 1, named) == 0
