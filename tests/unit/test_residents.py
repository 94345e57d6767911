"""Models share memory: the least recently used idle one goes first, none in use ever, and waiting has a bound."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from services.errors import ModelError, Transient
from tests.conftest import wait_until
from workers.engines import residents as module
from workers.engines.base import WorkCancelled, never, no_tick
from workers.engines.plan import ContextPlan
from workers.engines.residents import Choose, Key, Residents


@dataclass
class House:
    """Room for 10 bytes; every model wants 4, or 2 with half of its sequences; ``engines`` are loaded."""

    room: int = 10
    engines: dict[Key, object] = field(default_factory=dict[Key, object])
    closed: list[str] = field(default_factory=list[str])
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.residents = Residents(self.close, self.stopping.is_set)

    def close(self, key: Key, engine: object) -> bool:
        if self.engines.get(key) is not engine:
            return False
        assert self.residents._there[key].leases == 0, "in use"
        del self.engines[key]
        self.closed.append(key[1])
        return True

    def choose(self, size: int) -> Choose:
        def choose(freed: int) -> ContextPlan:
            left = self.room - self.residents.held_bytes + freed
            for sequences, needed in ((16, size), (4, size // 2)):
                if needed <= left:
                    return ContextPlan(256, sequences, 512, 256, gpu_layers=0, weights_bytes=needed)
            raise ModelError("too large", code="memory_exceeded")

        return choose

    def load(self, name: str, size: int = 4) -> ContextPlan:
        key = self.key(name)
        plan = self.residents.admit(key, self.choose(size))
        self.engines[key] = object()
        self.residents.loaded(key, self.engines[key])
        return plan

    def get(self, name: str) -> object:
        """The engine, loaded anew where it is gone."""
        if self.key(name) not in self.engines:
            self.load(name)
        return self.engines[self.key(name)]

    def use(self, name: str) -> None:
        with self.residents.lease(self.key(name), lambda: self.get(name), no_tick, never):
            pass

    @staticmethod
    def key(name: str) -> Key:
        return "generate", name


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    house = House()
    yield house
    house.stopping.set()


def test_models_stay_side_by_side_as_long_as_they_fit(house: House) -> None:
    assert [house.load(name).sequences for name in "ab"] == [16, 16]
    assert (house.closed, house.residents.held_bytes) == ([], 8)


def test_the_least_recently_used_makes_room(house: House) -> None:
    house.load("a")
    house.load("b")
    house.use("a")
    assert house.load("c").sequences == 16
    assert house.closed == ["b"]


def test_one_in_use_is_never_closed(house: House) -> None:
    house.load("a")
    house.load("b")
    with house.residents.lease(house.key("a"), lambda: house.get("a"), no_tick, never):
        house.load("c")
        assert house.closed == ["b"]


def test_where_all_are_in_use_a_smaller_plan_will_do(house: House) -> None:
    with ExitStack() as leases:
        for name in "ab":
            leases.enter_context(
                house.residents.lease(house.key(name), lambda name=name: house.get(name), no_tick, never)
            )
        assert house.load("c").sequences == 4
    assert house.closed == []


def test_a_load_waits_for_one_in_use(house: House) -> None:
    with ThreadPoolExecutor(1) as pool:
        with house.residents.lease(house.key("a"), lambda: (house.load("a", 10), house.get("a"))[1], no_tick, never):
            waiting = pool.submit(house.load, "b")
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        assert waiting.result(30).sequences == 16
    assert house.closed == ["a"]


def test_waiting_has_a_bound_and_leaves_the_others_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    house.load("a", 10)
    with house.residents.lease(house.key("a"), lambda: house.get("a"), no_tick, never):
        with pytest.raises(Transient) as caught:
            house.load("b")
        assert caught.value.code == "memory_busy"
        house.use("a")
    house.use("a")
    assert house.closed == []


def test_a_model_that_is_always_in_use_leaves_for_one_that_has_waited(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    house.load("a", 10)
    with ThreadPoolExecutor(2) as pool:
        with house.residents.lease(house.key("a"), lambda: house.get("a"), no_tick, never):
            waiting = pool.submit(house.load, "b", 8)
            wait_until(lambda: house.residents._there[house.key("a")].leaving, what="the end of patience")
            newcomer = pool.submit(house.use, "a")
            assert not newcomer.done()
        assert waiting.result(30).sequences == 16
        newcomer.result(30)
    assert house.closed[0] == "a"


def test_what_cannot_fit_even_alone_closes_nobody(house: House) -> None:
    house.load("a")
    with pytest.raises(ModelError) as caught:
        house.load("giant", 22)
    assert caught.value.code == "memory_exceeded"
    assert (house.closed, house.residents.held_bytes) == ([], 4)


def test_a_failed_load_gives_its_room_back(house: House) -> None:
    house.residents.admit(house.key("a"), house.choose(4))
    assert house.residents.loading_bytes == 4
    house.residents.forget(house.key("a"))
    assert house.residents.held_bytes == 0


def test_who_waits_for_a_leaving_model_can_be_cancelled(house: House) -> None:
    house.load("a")
    house.residents._there[house.key("a")].leaving = True
    ticks: list[int] = []
    with (
        pytest.raises(WorkCancelled),
        house.residents.lease(house.key("a"), lambda: house.get("a"), lambda: ticks.append(1), lambda: len(ticks) > 2),
    ):
        pass
    assert len(ticks) == 3


def test_a_load_that_waits_ends_with_the_worker(house: House) -> None:
    house.load("a", 10)
    with ThreadPoolExecutor(1) as pool, house.residents.lease(house.key("a"), lambda: house.get("a"), no_tick, never):
        waiting = pool.submit(house.load, "b")
        house.stopping.set()
        with pytest.raises(Transient) as caught:
            waiting.result(30)
    assert caught.value.code == "engine_closed"


def test_many_threads_over_more_models_than_fit(house: House) -> None:
    """Each lease holds an engine that is open, whatever the others load meanwhile."""
    loading = threading.Lock()

    def get(name: str) -> object:
        with loading:
            return house.get(name)

    def work(number: int) -> None:
        for step in range(30):
            name = "abcd"[(number + step) % 4]
            with house.residents.lease(house.key(name), lambda name=name: get(name), no_tick, never) as engine:
                assert house.engines[house.key(name)] is engine

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, number) for number in range(4)]:
            done.result(60)
    assert house.closed
    assert house.residents.held_bytes <= house.room
