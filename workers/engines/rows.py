"""Spreads the work on the rows of one engine step over a few threads; numpy and llguidance let go of the GIL meanwhile.

The threads belong to the process, not to an engine: however many models are loaded, there are at most three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Final

from workers.hardware import usable_cores

# More are slower: they wait for each other and for the memory that all of them read.
MAX_THREADS: Final = 4
# Values a thread must get to be worth waking: below this a step is over sooner than another thread begins.
VALUES_A_THREAD: Final = 2**18


@cache
def _cores() -> int:
    return len(usable_cores())


@cache
def _others() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_THREADS - 1, thread_name_prefix="rows")


def each_row(work: Callable[[int], None], rows: Sequence[int], values: int) -> None:
    """Call ``work`` once with each of ``rows``, in several threads where that pays.

    ``values`` is how many numbers a row has. ``work`` must not depend on the order. Raises what ``work`` raises.
    """
    threads = min(MAX_THREADS, _cores(), len(rows), len(rows) * values // VALUES_A_THREAD)
    # Taking the next item of one iterator is atomic, so a thread that is done early takes over from the others.
    left = iter(rows)

    def run() -> None:
        for row in left:
            work(row)

    helping = [_others().submit(run) for _ in range(threads - 1)]
    try:
        run()
    finally:
        # One that has not begun yet has nothing left to do; no other may still read rows when this returns.
        begun = [future for future in helping if not future.cancel()]
        wait(begun)
    for future in begun:
        future.result()
