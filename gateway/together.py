"""Does what requests ask for at the same moment in one go: one thread and one exchange with Redis for all of them.

A thread for each of hundreds of requests a second costs more than most of them do there, and the server syncs to its
disk once for whatever comes together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

# Nobody waits long behind the others of the same go, and while one go waits for the disk the next is made.
MOST, GOES = 50, 4


class Together(Generic[Asked, Answer]):
    """Awaited with one item; what comes while goes are under way is one of the next. For one event loop.

    ``each`` runs in a thread and answers an item or an error for each it is given, in order. What it raises itself
    reaches everybody of that go.
    """

    def __init__(self, each: Callable[[Sequence[Asked]], Sequence[Answer | Exception]]) -> None:
        self._each = each
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._going: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Asked) -> Answer:
        """The item's own answer; raises the item's own error."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._going) < GOES:
            self._going.add(asyncio.create_task(self._go()))
        return await future

    async def _go(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                try:
                    answers = await run_in_threadpool(self._each, [item for item, _ in batch])
                except Exception as error:  # theirs to tell, as if each had called alone
                    answers = [error] * len(batch)
                for (_, future), answer in zip(batch, answers, strict=True):
                    if future.done():  # nobody waits for it any more
                        continue
                    if isinstance(answer, Exception):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:  # in the same turn as the last look, or what comes between would wait for the next request
            self._going = {go for go in self._going if go is not asyncio.current_task()}
