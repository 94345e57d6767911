"""A slot delivers what it has done, whatever keeps it from claiming more."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from services.errors import ModelError, Transient
from services.jobs import Claim, Device, Lane, Priority, State
from workers.slots import Slots, Work

CLAIM = Claim("acme", "job_1", 1, "generate", Lane.GENERATE, Priority.NORMAL, {}, None, None, None, {}, None)


def test_a_task_of_a_later_version_waits_for_a_worker_that_has_it() -> None:
    delivered: list[Any] = []

    def work(done: Any, **_: Any) -> Any:
        delivered.extend(done)
        return [State.QUEUED] * len(done), [] if done else [CLAIM]

    lifecycle: Any = SimpleNamespace(work=work, settings=SimpleNamespace(lease_seconds=1))
    pulse: Any = SimpleNamespace(add=lambda _: None, remove=lambda _: None)
    todo = Work({"embed": lambda _: {}}, lambda *_: "res_1", lambda _: {"m": True})
    Slots(lifecycle, pulse, todo, worker="w", device=Device.CPU, seats=1).serve(Lane.GENERATE, lambda _: None)
    assert [(completion.outcome, completion.problem["code"]) for completion in delivered] == [("retry", "task_unknown")]


def test_a_damaged_catalog_does_not_take_a_finished_result_along() -> None:
    delivered: list[tuple[int, list[str]]] = []
    looks = iter([{"m": True}])

    def work(done: Any, *, n: int, **_: Any) -> Any:
        delivered.append((n, [completion.outcome for completion in done]))
        return [State.SUCCEEDED] * len(done), [] if done else [CLAIM]

    def models(_: Lane) -> dict[str, bool]:
        try:
            return next(looks)
        except StopIteration:
            raise ModelError("the catalog is damaged") from None

    lifecycle: Any = SimpleNamespace(work=work, settings=SimpleNamespace(lease_seconds=1))
    pulse: Any = SimpleNamespace(add=lambda _: None, remove=lambda _: None)
    todo = Work({"generate": lambda _: {}}, lambda *_: "res_1", models)
    slots = Slots(lifecycle, pulse, todo, worker="w", device=Device.CPU, seats=1)
    assert slots.serve(Lane.GENERATE, lambda _: None) == {"jobs": 1, "ended": {"succeeded": 1}, "ids": ["job_1"]}
    assert delivered == [(1, []), (0, ["succeeded"])]


@pytest.mark.parametrize(
    ("attempt", "released", "asked", "wait"),
    [(1, 0, None, 2), (3, 0, None, 8), (13, 12, None, 2), (5000, 0, None, 256), (13, 12, 900.0, 900)],
    ids=["first", "third", "handed back and replayed before", "a batch's step on a full disk", "the server's wish"],
)
def test_a_retry_waits_by_the_tries_of_this_life(attempt: int, released: int, asked: float | None, wait: float) -> None:
    claim = replace(CLAIM, attempt=attempt, released=released)
    delivered: list[Any] = []

    def work(done: Any, **_: Any) -> Any:
        delivered.extend(done)
        return [State.SCHEDULED] * len(done), [] if done else [claim]

    def busy(_: Any) -> Any:
        raise Transient("busy", code="busy", retry_after=asked)

    lifecycle: Any = SimpleNamespace(work=work, settings=SimpleNamespace(lease_seconds=1))
    pulse: Any = SimpleNamespace(add=lambda _: None, remove=lambda _: None)
    todo = Work({"generate": busy}, lambda *_: "res_1", lambda _: {"m": True})
    Slots(lifecycle, pulse, todo, worker="w", device=Device.CPU, seats=1).serve(Lane.GENERATE, lambda _: None)
    assert [completion.retry_after for completion in delivered] == [wait]


@pytest.mark.parametrize(("stalled", "tries"), [(0.0, True), (0.7, False)])
def test_a_process_whose_engine_stands_still_tries_no_suspect(stalled: float, tries: bool) -> None:
    choices: list[Any] = []

    def work(_: Any, *, choice: Any, **__: Any) -> Any:
        choices.append(choice.suspects)
        return [], []

    lifecycle: Any = SimpleNamespace(work=work, settings=SimpleNamespace(lease_seconds=1))
    todo = Work({}, lambda *_: "res_1", lambda _: {"m": True})
    pulse: Any = SimpleNamespace(remove=lambda _: None)
    slots = Slots(lifecycle, pulse, todo, worker="w", device=Device.CPU, seats=1, stalled=lambda: stalled)
    slots.serve(Lane.GENERATE, lambda _: None)
    assert choices == [tries]


@pytest.mark.parametrize("slow", [1, 2])
def test_what_is_done_is_not_kept_back_by_what_takes_long(slow: int) -> None:
    """Nor are leases let go before the end is delivered."""
    claims = [replace(CLAIM, id=f"job_{number}", input={"number": number}) for number in range(3)]
    leases: set[str] = set()
    delivered: list[str] = []
    before: list[str] = []
    first = threading.Event()

    def work(done: Any, **_: Any) -> Any:
        names = [completion.claim.id for completion in done]
        assert leases.issuperset(names)
        delivered.extend(names)
        if done:
            first.set()
        return [State.SUCCEEDED] * len(done), [] if done else claims

    def task(execution: Any) -> dict[str, Any]:
        if execution.claim.input["number"] == slow:
            first.wait(10)
            before.extend(delivered)
        return {}

    def remove(ended: Any) -> None:
        leases.difference_update(claim.id for claim in ended)

    lifecycle: Any = SimpleNamespace(work=work, settings=SimpleNamespace(lease_seconds=1))
    pulse: Any = SimpleNamespace(add=lambda execution: leases.add(execution.claim.id), remove=remove)
    todo = Work({"generate": task}, lambda *_: "res_1", lambda _: {"m": True}, batch=lambda _: 3)
    tally = Slots(lifecycle, pulse, todo, worker="w", device=Device.CPU, seats=1).serve(Lane.GENERATE, lambda _: None)
    assert before == ["job_0", "job_1"][:slow], "delivered while the slow one runs"
    assert tally["ended"] == {"succeeded": 3}
    assert (sorted(delivered), leases) == (["job_0", "job_1", "job_2"], set())
