"""Follows any number of Redis streams over one connection, which blocks on all of them for every follower of a process.

A follower that comes or goes wakes the blocked read, which then goes on with the streams that are followed now. Each
follower keeps its own place, so one that is slow is left out until it has caught up, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from services.errors import Unavailable
from services.redis_client import connect_alone, redis_errors
from services.settings import Settings

log = logging.getLogger(__name__)

Row = tuple[str, dict[str, str]]

MAX_FOLLOWERS = 2000
BLOCK_SECONDS = 10.0
# Entries that one read takes of a stream, and that may wait for one follower before it is left out.
READ_COUNT = 500
ROOM = 1000
RETRY_SECONDS = 0.002


class Follower:
    """One reader of one stream, after a place in it."""

    def __init__(self, after: str, ready: Callable[[], None]) -> None:
        self.after = after
        self._ready = ready
        self._place = place(after)
        self._rows: deque[Row] = deque()
        self._arrived = asyncio.Event()
        self._broken: Unavailable | None = None

    @property
    def has_room(self) -> bool:
        """Whether it takes more now."""
        return len(self._rows) < ROOM and self._broken is None

    def give(self, rows: list[Row]) -> None:
        """Entries of the stream, of which it keeps those that it has not had."""
        for row in rows:
            here = place(row[0])
            if here > self._place:
                self._rows.append(row)
                self.after, self._place = row[0], here
        if self._rows:
            self._arrived.set()

    def end(self, error: Unavailable) -> None:
        """Let :meth:`next` raise, once what has arrived is taken."""
        self._broken = error
        self._arrived.set()

    async def next(self, seconds: float) -> list[Row]:
        """What has arrived, waiting ``seconds`` for it at most; raises ``Unavailable`` when the server went away."""
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return []
        if not self._rows and self._broken:
            raise self._broken
        rows = list(self._rows)
        self._rows.clear()
        if not self._broken:
            self._arrived.clear()
            if len(rows) >= ROOM:
                self._ready()
        return rows


class Streams:
    """The one reader of a process; belongs to the event loop that first follows."""

    def __init__(self, settings: Settings) -> None:
        self._reader = connect_alone(settings, block_seconds=BLOCK_SECONDS)
        self._commands = connect_alone(settings)
        self._followers: dict[str, list[Follower]] = {}
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._waking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()  # the read in progress does not follow what is to be followed now
        self._number: int | None = None  # of the reader's connection, by which the server unblocks it
        self._reading = False

    @asynccontextmanager
    async def following(self, name: str, after: str) -> AsyncGenerator[Follower]:
        """A follower of a stream after an id of it; raises ``Unavailable`` when there are too many."""
        if self._count >= MAX_FOLLOWERS:
            raise Unavailable("too many requests follow events at once; try again", code="too_many_followers")
        follower = Follower(after, self.wake)
        self._followers.setdefault(name, []).append(follower)
        self._count += 1
        if self._task is None:
            self._task = asyncio.create_task(self._read_on())
        self.wake()
        try:
            yield follower
        finally:
            self._count -= 1
            self._followers[name].remove(follower)
            if not self._followers[name]:
                del self._followers[name]
            self.wake()

    async def ends(self, name: str) -> tuple[Row | None, Row | None]:
        """The oldest entry of a stream and the newest, ``None`` where it has none."""
        with redis_errors():
            newest: list[Row] = await self._commands.xrevrange(name, count=1)
            oldest: list[Row] = await self._commands.xrange(name, count=1)
        return (oldest[0] if oldest else None), (newest[0] if newest else None)

    def wake(self) -> None:
        """Let the read begin anew with what is followed now."""
        self._changed.set()
        if self._reading and self._waking is None:
            self._waking = asyncio.create_task(self._unblock())

    async def aclose(self) -> None:
        """End the reader and its connections."""
        tasks = [task for task in (self._task, self._waking) if task]
        while waiting := [task for task in tasks if not task.done()]:
            for task in waiting:
                task.cancel()  # asyncio.wait_for, which the client sends by, may swallow one before Python 3.12
            await asyncio.wait(waiting, timeout=0.1)
        await self._reader.aclose()
        await self._commands.aclose()

    async def _unblock(self) -> None:
        """The read may be on its way to the server still, so ask until it is back."""
        try:
            while self._changed.is_set() and self._reading and self._number is not None:
                with redis_errors():
                    await self._commands.client_unblock(self._number)
                await asyncio.sleep(RETRY_SECONDS)
        except Unavailable:
            pass  # the read learns of it itself
        finally:
            self._waking = None

    def _places(self) -> dict[str, str]:
        """Where to read on, by stream: the earliest place among its followers that have room."""
        ready = ((name, [one for one in group if one.has_room]) for name, group in self._followers.items())
        return {name: min((one.after for one in group), key=place) for name, group in ready if group}

    async def _read_on(self) -> None:
        while True:
            self._changed.clear()
            places = self._places()
            if not places:
                await self._changed.wait()
                continue
            try:
                answer = await self._read(places)
            except Exception as error:  # whoever follows must learn of it, and who comes next is read for again
                if not isinstance(error, Unavailable):
                    log.exception("the reader of streams")
                    error = Unavailable("the events cannot be read; the gateway's log has the reason")
                for follower in [one for group in self._followers.values() for one in group]:
                    follower.end(error)
                await self._changed.wait()
                continue
            for name, rows in answer:
                for follower in self._followers.get(name, ()):
                    # Who came meanwhile with an earlier place would miss what lies between: it is read for next.
                    if follower.has_room and place(follower.after) >= place(places[name]):
                        follower.give(rows)

    async def _read(self, places: dict[str, str]) -> list[tuple[str, list[Row]]]:
        with redis_errors():
            try:
                if self._number is None:
                    self._number = int(await self._reader.client_id())
                    if self._changed.is_set():
                        return []
                self._reading = True
                answer: Any = await self._reader.xread(places, count=READ_COUNT, block=int(BLOCK_SECONDS * 1000))
            except BaseException:
                self._number = None  # the next command makes a new connection
                raise
            finally:
                self._reading = False
        return answer or []


def place(stream_id: str) -> tuple[int, int]:
    """A stream's id as it compares."""
    time, _, serial = stream_id.partition("-")
    return int(time), int(serial or 0)
