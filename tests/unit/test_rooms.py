"""What a process keeps of rooms: within its limit, the least recently used go first, one thread has one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from tests.conftest import wait_until
from workers.analysis.collection import Collection
from workers.engines.base import no_tick
from workers.rooms import Part, Rooms


class House:
    """Uses rooms of parts of so many bytes; ``made`` are the sizes of the parts made for the last one."""

    def __init__(self, most_bytes: int) -> None:
        self.rooms = Rooms(most_bytes)
        self.made: list[int] = []

    def use(self, texts: str, *sizes: int, tenant: str = "acme") -> None:
        self.made = []
        with self.rooms.room(tenant, texts, no_tick) as room:
            assert [part.bytes for part in room.parts(lambda: self.make(sizes))] == list(sizes)

    def make(self, sizes: Sequence[int]) -> Iterator[Part]:
        for size in sizes:
            self.made.append(size)
            yield Part(Collection([b"x" * size]), size, [()])


def test_a_room_is_made_once_and_by_each_tenant() -> None:
    house = House(100)
    house.use("a", 30, 20)
    assert house.made == [30, 20]
    house.use("a", 30, 20)
    assert house.made == []
    house.use("a", 30, 20, tenant="rival")
    assert house.made == [30, 20]


def test_the_least_recently_used_leave_for_one_that_fits() -> None:
    house = House(100)
    for texts in ("a", "b"):
        house.use(texts, 20, 20)
    house.use("a", 20, 20)
    house.use("c", 40)
    house.use("a", 20, 20)
    assert house.made == []
    house.use("b", 20, 20)
    assert house.made == [20, 20]
    house.use("c", 40)
    assert house.made == [40]


def test_what_does_not_fit_whole_is_not_kept_and_is_made_all_the_same() -> None:
    house = House(50)
    for _ in range(2):
        house.use("large", 30, 30, 10)
        assert house.made == [30, 30, 10]
    house.use("a", 50)
    house.use("large", 51)
    house.use("a", 50)
    assert house.made == []


def test_no_bytes_keep_nothing() -> None:
    house = House(0)
    for _ in range(2):
        house.use("a", 1)
        assert house.made == [1]


def test_a_room_that_was_not_taken_whole_is_made_anew() -> None:
    house = House(100)
    with pytest.raises(KeyError), house.rooms.room("acme", "a", no_tick) as room:
        for _ in room.parts(lambda: house.make([10, 20])):
            raise KeyError
    house.use("a", 10, 20)
    assert house.made == [10, 20]


def test_a_room_that_was_not_taken_whole_takes_no_place() -> None:
    house = House(50)
    house.use("b", 40)
    with pytest.raises(KeyError), house.rooms.room("acme", "a", no_tick) as room:
        for _ in room.parts(lambda: house.make([10])):
            raise KeyError
    house.use("c", 10)
    house.use("b", 40)
    assert house.made == []


def test_nothing_is_kept_of_what_was_in_use_when_all_was_forgotten() -> None:
    house = House(100)
    with house.rooms.room("acme", "a", no_tick) as room:
        for _ in room.parts(lambda: house.make([10])):
            house.rooms.forget()
    house.use("a", 10)
    assert house.made == [10]
    house.rooms.forget()
    house.use("a", 10)
    assert house.made == [10]


def test_who_waits_for_a_room_ticks_and_finds_it_made() -> None:
    house = House(100)
    ticks: list[None] = []
    found: list[bool] = []

    def second() -> None:
        with house.rooms.room("acme", "a", lambda: ticks.append(None)) as room:
            found.append(bool(room.kept))

    with house.rooms.room("acme", "a", no_tick) as room:
        thread = threading.Thread(target=second)
        thread.start()
        wait_until(lambda: ticks)
        assert not found
        assert [part.bytes for part in room.parts(lambda: house.make([10]))] == [10]
    thread.join()
    assert found == [True]
