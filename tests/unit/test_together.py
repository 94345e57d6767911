"""What requests ask for at the same moment is done in one go, and each is told its own end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from gateway.together import GOES, MOST, Together


class Doubling:
    """Doubles numbers once it may; a negative one is an error of its own."""

    def __init__(self) -> None:
        self.goes: list[list[int]] = []
        self.may = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.goes.append(list(numbers))
        assert self.may.wait(10)
        return [ValueError(f"{number} is negative") if number < 0 else 2 * number for number in numbers]


async def begun(doubling: Doubling, goes: int) -> None:
    while len(doubling.goes) < goes:
        await asyncio.sleep(0.001)


async def asked(together: Together[int, int], numbers: Sequence[int]) -> list[asyncio.Task[int]]:
    """Every number asked for, one after the other."""
    tasks: list[asyncio.Task[int]] = []
    for number in numbers:
        tasks.append(asyncio.create_task(_one(together, number)))
        await asyncio.sleep(0)
    return tasks


async def _one(together: Together[int, int], number: int) -> int:
    return await together(number)


def test_what_comes_while_all_goes_are_under_way_goes_together() -> None:
    async def run() -> None:
        doubling = Doubling()
        together = Together(doubling)
        tasks: list[asyncio.Task[int]] = []
        for number in range(GOES):
            tasks += await asked(together, [number])
            await begun(doubling, number + 1)
        tasks += await asked(together, range(GOES, GOES + MOST + 3))
        doubling.may.set()
        assert await asyncio.gather(*tasks) == [2 * number for number in range(GOES + MOST + 3)]
        sizes = [len(go) for go in doubling.goes]
        assert sizes[:GOES] == [1] * GOES
        assert sorted(sizes[GOES:]) == [3, MOST]
        assert await together(7) == 14, "it goes on after a rest"

    asyncio.run(run())


def test_an_error_is_told_to_whom_it_belongs_and_one_of_the_go_to_all() -> None:
    async def run() -> None:
        doubling = Doubling()
        doubling.may.set()
        together = Together(doubling)
        told = await asyncio.gather(*await asked(together, [1, -1, 2]), return_exceptions=True)
        assert [str(one) for one in told] == ["2", "-1 is negative", "4"]

        def away(_: Sequence[int]) -> list[int | Exception]:
            raise ConnectionError("away")

        told = await asyncio.gather(*await asked(Together(away), [1, 2]), return_exceptions=True)
        assert [type(one) for one in told] == [ConnectionError, ConnectionError]

    asyncio.run(run())


def test_who_gives_up_holds_nobody_else_up() -> None:
    async def run() -> None:
        doubling = Doubling()
        together = Together(doubling)
        patient, gone = await asked(together, [1, 2])
        await begun(doubling, 1)
        gone.cancel()
        doubling.may.set()
        assert await patient == 2
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(run())


def test_who_comes_in_the_turn_in_which_all_goes_end_is_not_left_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[asyncio.Future[None]] = []

    async def inline(each: Callable[[list[int]], list[int]], items: list[int]) -> list[int]:
        """As a thread whose end the loop hears of when the test says so."""
        ends.append(asyncio.get_running_loop().create_future())
        await ends[-1]
        return each(items)

    monkeypatch.setattr("gateway.together.run_in_threadpool", inline)

    async def run() -> None:
        together = Together[int, int](lambda items: [2 * item for item in items])
        tasks: list[asyncio.Task[int]] = []
        for number in range(GOES):
            tasks += await asked(together, [number])
            await asyncio.sleep(0)
        assert len(ends) == GOES
        for end in ends:
            end.set_result(None)
        late = asyncio.create_task(_one(together, 100))  # runs after the goes, in the same turn
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)
        if not ends[-1].done():
            ends[-1].set_result(None)
        assert await asyncio.wait_for(late, 5) == 200

    asyncio.run(run())
