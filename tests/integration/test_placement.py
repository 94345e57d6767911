"""Whose slot a job wakes: each policy's shares, and that nothing waits for a worker that is gone, leaves or joins."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from services.fleet import Announcement, Fleet, WorkerModel
from services.jobs import Claim, Completion, Device, JobType, Lane, Priority, Submission
from services.keys import Keys
from services.lifecycle import Lifecycle
from services.redis_client import connect
from services.settings import Settings
from tests.conftest import wait_until
from tests.integration.test_lifecycle import tidy

__all__ = ["tidy"]

pytestmark = pytest.mark.both_servers

POLICIES = ("round_robin", "least_connections", "weighted")
CPU = (Device.CPU, Device.ANY)


class House:
    """An installation under one policy, with workers that are announced and read nothing."""

    def __init__(self, settings: Settings, policy: str) -> None:
        self.lifecycle = Lifecycle(settings.model_copy(update={"placement": policy}))
        self.raw: Any = self.lifecycle.client
        self.keys = self.lifecycle.keys
        self.fleet = Fleet(self.lifecycle.client, self.keys, placed=policy != "pull")

    def announce(
        self, worker: str, *, slots: int = 4, weight: int = 0, draining: bool = False, model: str = ""
    ) -> None:
        self.fleet.announce(
            Announcement(
                worker,
                "here",
                1,
                Device.CPU,
                "",
                (Lane.GENERATE, Lane.ANALYZE),
                slots,
                0,
                (),
                models=(WorkerModel(model, "generate", "", 1, loaded=False),) if model else (),
                memory=0,
                engine="llama" if model else "fake",
                version="0",
                started=0.0,
                weight=weight or slots,
                draining=draining,
            )
        )

    def submit(self, count: int = 1, **changes: Any) -> list[str]:
        values: dict[str, Any] = {"tenant": "acme", "type": JobType.ANALYZE, "input": {}} | changes
        return [self.lifecycle.submit(Submission(**values))[0].id for _ in range(count)]

    def tickets(self, worker: str = "", lane: str = "analyze") -> int:
        return self.raw.llen(self.keys("tickets", queue=f"{lane}.any" + (f".{worker}" if worker else "")))

    def take(self, worker: str) -> list[Claim]:
        """What a slot of the worker does on one of its tickets."""
        assert self.raw.rpop(self.keys("tickets", queue=f"analyze.any.{worker}"))
        return self.lifecycle.work([], lane=Lane.ANALYZE, devices=CPU, worker=worker, n=1)[1]

    def end(self, worker: str, held: Claim, *, stay: bool = False) -> None:
        done = [Completion(held, "succeeded")]
        self.lifecycle.work(done, lane=Lane.ANALYZE, devices=CPU, worker=worker, n=0, stay=stay)

    def silence(self, worker: str) -> None:
        """Let the worker's last announcement be too long ago."""
        for lane in (Lane.GENERATE, Lane.ANALYZE):
            for device in CPU:
                name = self.keys("placement", lane=lane, device=device)
                record = self.raw.hget(name, worker)
                self.raw.hset(name, worker, record.replace('"ends": ', '"ends": 1, "was": '))


@pytest.fixture
def house(settings: Settings, keys: Keys) -> Iterator[Callable[[str], House]]:
    yield lambda policy: House(settings, policy)
    forget(settings, keys)


def forget(settings: Settings, keys: Keys) -> None:
    """Trim what the caretaker trims a minute after the workers have gone."""
    client = connect(settings)
    client.delete(keys("workers"))
    client.close()


def test_pull_knows_no_worker(house: Callable[[str], House]) -> None:
    pull = house("pull")
    pull.announce("a")
    pull.submit(3)
    pull.lifecycle.care()
    assert pull.tickets() == 3
    assert not list(pull.raw.scan_iter(pull.keys("placement", lane="*", device="*")))
    assert not list(pull.raw.scan_iter(pull.keys("turns", lane="*", device="*")))


def test_a_slot_that_goes_on_with_its_claim_wakes_nobody(house: Callable[[str], House]) -> None:
    pull = house("pull")
    pull.announce("a")
    pull.submit(4, cost=0.5)
    pull.raw.delete(pull.keys("tickets", queue="analyze.any"))
    place: dict[str, Any] = {"lane": Lane.ANALYZE, "devices": CPU, "worker": "a"}
    first, second = pull.lifecycle.work([], n=2, **place)[1]
    pull.lifecycle.work([Completion(first, "succeeded")], n=0, goes_on=True, **place)
    assert pull.tickets() == 0
    pull.lifecycle.work([Completion(second, "succeeded")], n=0, **place)
    assert pull.tickets() == 1, "one that stops does"


@pytest.mark.parametrize("policy", ["pull", "round_robin"])
def test_suspects_wake_no_more_workers_than_may_try_one(house: Callable[[str], House], policy: str) -> None:
    """The caretaker wrote tickets for all of them once a second, and so did each slot that stopped."""
    crashing = house("pull")
    crashing.announce("a")
    crashing.submit(4)
    for _ in range(2):
        while crashing.lifecycle.work([], lane=Lane.ANALYZE, devices=CPU, worker="a", n=1)[1]:
            pass
        crashing.lifecycle.care(dead_workers=["a"])
    fleet = house(policy)
    fleet.announce("a")

    def woken() -> int:
        for worker in ("", "a", "b"):
            fleet.raw.delete(fleet.keys("tickets", queue="analyze.any" + (f".{worker}" if worker else "")))
        fleet.lifecycle.care()
        return sum(map(fleet.tickets, ("", "a", "b")))

    assert woken() == 1
    (tried,) = fleet.lifecycle.work([], lane=Lane.ANALYZE, devices=CPU, worker="a", n=1)[1]
    assert woken() == 0, "the one worker that there is tries one"
    fleet.lifecycle.work([], lane=Lane.ANALYZE, devices=CPU, worker="a", n=0)
    assert fleet.tickets() + fleet.tickets("a") == 0, "a slot that stops knows it too"
    fleet.announce("b", draining=True)
    assert woken() == 0, "nor does one that ends take any"
    fleet.announce("b")
    assert woken() == 1
    fleet.end("a", tried)
    assert woken() == 2


def test_suspects_of_several_priorities_wake_a_worker_once(house: Callable[[str], House]) -> None:
    pull = house("pull")
    pull.announce("a")
    for priority in Priority:
        pull.submit(priority=priority)
    for _ in range(2):
        while pull.lifecycle.work([], lane=Lane.ANALYZE, devices=CPU, worker="a", n=1)[1]:
            pass
        pull.lifecycle.care(dead_workers=["a"])
    pull.raw.delete(pull.keys("tickets", queue="analyze.any"))
    pull.lifecycle.care()
    assert pull.tickets() == 1


def test_jobs_whose_model_nobody_has_wake_nobody(house: Callable[[str], House]) -> None:
    pull = house("pull")
    pull.announce("a", model="here")
    pull.submit(2, type=JobType.GENERATE, model="elsewhere")
    pull.submit(1, type=JobType.GENERATE, model="here")
    pull.raw.delete(pull.keys("tickets", queue="generate.any"))
    pull.lifecycle.care()
    assert pull.tickets(lane="generate") == 1
    pull.announce("b", model="elsewhere")
    pull.lifecycle.care()
    assert pull.tickets(lane="generate") == 3


def test_pull_wakes_with_the_commands_it_always_had(house: Callable[[str], House]) -> None:
    pull = house("pull")
    pull.submit()
    names = ("llen", "hincrby", "lpush", "hgetall", "expire")
    stats = lambda: {name: pull.raw.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0) for name in names}  # noqa: E731
    before = stats()
    pull.submit()
    after = stats()
    # llen and lpush of the ticket; its serial, two accounts and a total; the record is not read back.
    assert {name: after[name] - before[name] for name in names} == {
        "llen": 1,
        "hincrby": 4,
        "lpush": 1,
        "hgetall": 0,
        "expire": 0,
    }


def test_round_robin_goes_in_turn(house: Callable[[str], House]) -> None:
    turns = house("round_robin")
    for worker, slots in (("a", 1), ("b", 4), ("c", 16)):
        turns.announce(worker, slots=slots)
    order: list[str] = []
    for _ in range(6):
        before = {worker: turns.tickets(worker) for worker in "abc"}
        turns.submit()
        order += [worker for worker in "abc" if turns.tickets(worker) > before[worker]]
    assert order == ["a", "b", "c"] * 2
    turns.submit(24)
    assert [turns.tickets(worker) for worker in "abc"] == [10, 10, 10]
    assert turns.tickets() == 0


def test_weighted_follows_the_weights_smoothly(house: Callable[[str], House]) -> None:
    weights = house("weighted")
    weights.announce("a", slots=4, weight=1)
    weights.announce("b", slots=2)
    weights.announce("c", slots=4)
    weights.submit(7)
    assert [weights.tickets(worker) for worker in "abc"] == [1, 2, 4]
    weights.submit(28)
    assert [weights.tickets(worker) for worker in "abc"] == [5, 10, 20]


def test_least_connections_counts_tickets_and_leases_against_slots(house: Callable[[str], House]) -> None:
    least = house("least_connections")
    least.announce("a", slots=2)
    least.announce("b", slots=4)
    least.submit(3)
    assert [least.tickets(worker) for worker in "ab"] == [1, 2]
    held = least.take("a") + least.take("b")
    least.submit(2)
    assert [least.tickets(worker) + (1 if worker in "ab" else 0) for worker in "ab"] == [2, 3]
    # Tickets of another lane take room as well, and once every slot is spoken for the jobs wait unplaced.
    least.submit(type=JobType.GENERATE, input={"prompt": "x"})
    assert least.tickets("b", "generate") == 1
    least.submit(5)
    assert [least.tickets(worker) for worker in "ab"] == [1, 2]
    least.end("a", held[0])
    assert [least.tickets(worker) for worker in "ab"] == [2, 2]
    least.end("b", held[1])


@pytest.mark.parametrize("policy", POLICIES)
def test_urgent_work_goes_where_a_slot_is_free(house: Callable[[str], House], policy: str) -> None:
    placed = house(policy)
    placed.announce("a", slots=1)
    placed.announce("b", slots=20, weight=1)
    placed.submit(2)
    before = placed.tickets("b")
    placed.submit(10, priority=Priority.CRITICAL)
    assert placed.tickets("b") >= before + 9


@pytest.mark.parametrize("policy", POLICIES)
def test_tickets_of_a_worker_that_fell_silent_are_issued_again(house: Callable[[str], House], policy: str) -> None:
    placed = house(policy)
    placed.announce("dead", slots=10)
    placed.announce("live", slots=10)
    placed.lifecycle.care()
    placed.submit(8)
    assert (placed.tickets("dead"), placed.tickets("live")) == (4, 4)
    placed.silence("dead")
    placed.lifecycle.care()
    assert (placed.tickets("dead"), placed.tickets("live")) == (0, 8)
    assert not placed.raw.exists(placed.keys("tickets", queue="analyze.any.dead"))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_worker_that_the_supervisor_saw_die_is_left_at_once(house: Callable[[str], House], policy: str) -> None:
    placed = house(policy)
    placed.announce("dead", slots=10)
    placed.announce("live", slots=10)
    placed.lifecycle.care()
    placed.submit(8)
    (held,) = placed.take("dead")
    assert placed.lifecycle.care(["dead"])[0] == 1
    placed.submit()
    assert (placed.tickets("dead"), placed.tickets("live")) == (0, 9)
    assert placed.lifecycle.get("acme", held.id).state == "queued"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_worker_that_drains_gets_no_ticket_and_gives_its_own_back(house: Callable[[str], House], policy: str) -> None:
    placed = house(policy)
    placed.announce("ends", slots=10)
    placed.announce("stays", slots=10)
    placed.submit(8)
    placed.announce("ends", slots=10, draining=True)
    placed.submit(2)
    assert placed.tickets("ends") == 0
    placed.lifecycle.care()
    assert placed.tickets("stays") == 10
    assert "ends" in {worker.id for worker in placed.fleet.workers()}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_worker_that_joins_shares_what_waits(house: Callable[[str], House], policy: str) -> None:
    placed = house(policy)
    placed.announce("old", slots=4)
    placed.submit(8)
    placed.lifecycle.care()
    placed.announce("new", slots=4)
    placed.lifecycle.care()
    assert (placed.tickets("old"), placed.tickets("new")) == (4, 4)


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_live_worker_the_shared_queue_is_used(house: Callable[[str], House], policy: str) -> None:
    placed = house(policy)
    placed.submit(2)
    assert placed.tickets() == 2
    placed.announce("late")
    placed.submit()
    assert (placed.tickets(), placed.tickets("late")) == (2, 1)
    placed.silence("late")
    placed.lifecycle.care()
    assert (placed.tickets(), placed.tickets("late")) == (3, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_slot_behind_small_jobs_wakes_its_own_worker_and_others_by_policy(
    house: Callable[[str], House], policy: str
) -> None:
    placed = house(policy)
    placed.announce("a", slots=1)
    placed.announce("b", slots=1)
    placed.submit(2)
    held = placed.take("a") + placed.take("b")
    placed.submit()
    for worker in "ab":
        placed.raw.delete(placed.keys("tickets", queue=f"analyze.any.{worker}"))
    placed.end("b", held[1], stay=True)
    assert (placed.tickets("a"), placed.tickets("b")) == (0, 1)
    placed.end("a", held[0])
    assert placed.tickets("a") + placed.tickets("b") == 1, "one job waits, and one ticket is enough"


@pytest.mark.parametrize("policy", POLICIES)
def test_own_queues_end_with_the_announcements(house: Callable[[str], House], policy: str) -> None:
    placed = house(policy)
    placed.announce("a")
    placed.submit()
    for name in ("tickets", "placement"):
        parts = {"queue": "analyze.any.a"} if name == "tickets" else {"lane": "analyze", "device": "any"}
        assert 0 < placed.raw.ttl(placed.keys(name, **parts)) <= 10


@contextmanager
def process(settings: Settings, name: str) -> Generator[subprocess.Popen[bytes]]:
    """A real Celery worker with two slots under the settings' policy, killed at the end if it still runs."""
    env = os.environ | {
        "REDIS_URL": settings.redis_url,
        "CASEMILL_PREFIX": settings.prefix,
        "CASEMILL_DATA_DIR": str(settings.data_dir),
        "CASEMILL_LEASE_SECONDS": str(settings.lease_seconds),
        "CASEMILL_PLACEMENT": settings.placement,
    }
    command = [sys.executable, "-m", "tests.placed_worker", name, "--slots", "2"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=env, stdout=quiet, stderr=quiet) as worker:
        try:
            yield worker
        finally:
            worker.kill()


@pytest.mark.parametrize("policy", ["pull", *(pytest.param(policy, marks=pytest.mark.slow) for policy in POLICIES)])
def test_all_jobs_end_once_while_a_worker_is_killed(settings: Settings, policy: str) -> None:
    settings = settings.model_copy(update={"placement": policy, "lease_seconds": 2.0})
    lifecycle = Lifecycle(settings)
    raw: Any = lifecycle.client
    fleet = Fleet(lifecycle.client, lifecycle.keys)
    with ExitStack() as stack:
        victim = stack.enter_context(process(settings, "victim"))
        stack.enter_context(process(settings, "survivor"))
        wait_until(lambda: len(fleet.workers()) == 2, 30, "two workers")
        asked: dict[str, Any] = {"seconds": 0.3}
        jobs = [lifecycle.submit(Submission("acme", JobType.ANALYZE, asked))[0].id for _ in range(20)]
        records = lambda: [lifecycle.get("acme", job) for job in jobs]  # noqa: E731
        wait_until(lambda: any(raw.hget(_job(lifecycle, job), "worker") == "victim" for job in jobs), 30, "a claim")
        victim.kill()
        victim.wait()
        wait_until(lambda: all(record.state.value == "succeeded" for record in records()), 60, "the end of all jobs")
        for job in jobs:
            names = [row[1]["event"] for row in raw.xrange(lifecycle.keys("events", tenant="acme", id=job))]
            assert names.count("succeeded") == 1 and names[-1] == "succeeded"
        wait_until(
            lambda: not raw.exists(lifecycle.keys("tickets", queue="analyze.any.victim")), 30, "no leftover queue"
        )
    names = raw.scan_iter(f"{settings.prefix}tickets:_kombu.binding.*")
    assert not [name for name in names if name.endswith(("victim", "survivor"))]
    forget(settings, lifecycle.keys)


def _job(lifecycle: Lifecycle, job: str) -> str:
    return lifecycle.keys("job", tenant="acme", id=job)
