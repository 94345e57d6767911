"""Followers of streams share one connection, come and go, lag and come back, and none of them misses an event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.stack.valkey import EmbeddedValkey
from services import streams as module
from services.errors import Unavailable
from services.events import Event, follow_tenant
from services.jobs import JobType, Submission
from services.keys import Keys
from services.lifecycle import Lifecycle
from services.redis_client import connect
from services.sealed_records import SealedRecords
from services.seals import Seals
from services.settings import Settings
from services.streams import Streams
from services.tenant_secrets import TenantSecrets
from tests.serving import settings_on

pytestmark = pytest.mark.both_servers

FOLLOWERS = 50
EVENTS = 40


@pytest.fixture
def raw(settings: Settings) -> Any:
    client: Any = connect(settings)
    yield client
    for name in ("s", "clock:", "tickets:"):
        client.delete("-", *client.scan_iter(f"{settings.prefix}{name}*"))
    client.close()


def run(settings: Settings, test: Callable[[Streams], Coroutine[Any, Any, None]]) -> None:
    async def within() -> None:
        streams = Streams(settings)
        try:
            async with asyncio.timeout(60):
                await test(streams)
        finally:
            await streams.aclose()

    asyncio.run(within())


def add(raw: Any, name: str, *numbers: int) -> None:
    pipeline = raw.pipeline(transaction=False)
    for number in numbers:
        pipeline.xadd(name, {"n": str(number)})
    pipeline.execute()


async def taken(streams: Streams, name: str, count: int, after: str = "0") -> list[int]:
    found: list[int] = []
    async with streams.following(name, after) as follower:
        while len(found) < count:
            found += [int(fields["n"]) for _, fields in await follower.next(30)]
    return found


def test_many_followers_share_a_connection_and_miss_nothing(settings: Settings, raw: Any) -> None:
    names = [f"{settings.prefix}s{number % 25}" for number in range(FOLLOWERS)]
    before = raw.info("clients")["connected_clients"]

    async def test(streams: Streams) -> None:
        readers: list[asyncio.Task[list[int]]] = []
        for number in range(EVENTS):
            for name in dict.fromkeys(names):
                await asyncio.to_thread(add, raw, name, number)
            # Some have read much when others begin.
            coming = names[len(readers) : len(readers) + 2]
            readers += [asyncio.create_task(taken(streams, name, EVENTS)) for name in coming]
            if number == EVENTS - 2:
                assert len(readers) == FOLLOWERS
                assert raw.info("clients")["connected_clients"] <= before + 2  # the reader, and who wakes it
        assert await asyncio.gather(*readers) == [list(range(EVENTS))] * FOLLOWERS

    run(settings, test)


def test_a_follower_that_comes_is_read_for_at_once(settings: Settings, raw: Any) -> None:
    async def test(streams: Streams) -> None:
        async with streams.following(f"{settings.prefix}s-quiet", "0"):
            await asyncio.sleep(0.1)  # the read blocks by now, for ten seconds
            add(raw, f"{settings.prefix}s-new", 1)
            async with asyncio.timeout(5):
                assert await taken(streams, f"{settings.prefix}s-new", 1) == [1]

    run(settings, test)


def test_one_stream_is_read_from_several_places(settings: Settings, raw: Any) -> None:
    name = f"{settings.prefix}s"
    ids = [raw.xadd(name, {"n": str(number)}) for number in range(10)]

    async def test(streams: Streams) -> None:
        readers = [asyncio.create_task(taken(streams, name, 12 - start, ids[start - 1])) for start in (1, 5, 9)]
        await asyncio.sleep(0)
        await asyncio.to_thread(add, raw, name, 10, 11)
        assert await asyncio.gather(*readers) == [list(range(start, 12)) for start in (1, 5, 9)]

    run(settings, test)


def test_who_lags_is_left_out_and_catches_up(settings: Settings, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM", 20)
    monkeypatch.setattr(module, "READ_COUNT", 10)
    name = f"{settings.prefix}s"

    async def test(streams: Streams) -> None:
        async with streams.following(name, "0") as lagging:
            quick = asyncio.create_task(taken(streams, name, 200))
            await asyncio.to_thread(add, raw, name, *range(200))
            assert await quick == list(range(200))
            for _ in range(100):  # the reader finds nobody with room and waits
                await asyncio.sleep(0)
            found = [int(fields["n"]) for _, fields in await lagging.next(5)]
            assert len(found) <= 30  # what there was room for
            while len(found) < 200:
                rows = await lagging.next(5)  # at once: that it has taken what it had wakes the reader
                assert rows
                found += [int(fields["n"]) for _, fields in rows]
            assert found == list(range(200))

    run(settings, test)


def test_a_server_that_goes_away_is_told_and_one_that_is_back_is_read(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    server.start()
    settings = settings_on(server, tmp_path)
    name = f"{settings.prefix}s"

    async def test(streams: Streams) -> None:
        async with streams.following(name, "0") as follower:
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.stop)
            with pytest.raises(Unavailable):
                while True:
                    await follower.next(20)
        await asyncio.to_thread(server.start)
        client: Any = connect(settings_on(server, tmp_path, prefix=settings.prefix))
        add(client, name, 1)
        client.close()
        assert await taken(streams, name, 1) == [1]

    try:
        run(settings, test)
    finally:
        server.stop()


def test_there_is_an_end_to_how_many_follow(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FOLLOWERS", 1)

    async def test(streams: Streams) -> None:
        async with streams.following(f"{settings.prefix}s", "0"):
            with pytest.raises(Unavailable, match="too many"):
                async with streams.following(f"{settings.prefix}s", "0"):
                    pass

    run(settings, test)


@asynccontextmanager
async def states(streams: Streams, keys: Keys, after: str | None) -> AsyncGenerator[Any]:
    stream = follow_tenant(
        streams, keys, "acme", records=SealedRecords(Seals(None), TenantSecrets(Path())), after=after, idle_seconds=0.2
    )
    yield one_by_one(stream)
    await stream.aclose()


async def one_by_one(pages: AsyncGenerator[list[Event]]) -> AsyncGenerator[Event]:
    async for page in pages:
        for event in page:
            yield event


def cancelled_job(lifecycle: Lifecycle) -> str:
    job, _ = lifecycle.submit(Submission("acme", JobType.GENERATE, {"prompt": "x"}))
    lifecycle.cancel("acme", job.id)
    return job.id


def test_a_tenants_states_resume_and_tell_of_gaps(
    settings: Settings, lifecycle: Lifecycle, keys: Keys, raw: Any
) -> None:
    name = keys("tenant_events", tenant="acme")

    async def test(streams: Streams) -> None:
        async with states(streams, keys, None) as stream:
            ready = await anext(stream)
            assert ready.event == "ready"
            first = cancelled_job(lifecycle)
            seen = [await anext(stream) for _ in range(2)]
            assert [(event.event, event.data["job"]) for event in seen] == [("queued", first), ("cancelled", first)]
            waiting = await anext(stream)
            assert (waiting.event, waiting.id) == ("idle", seen[-1].id)
        second = cancelled_job(lifecycle)
        async with states(streams, keys, waiting.id) as stream:
            assert (await anext(stream)).event == "ready"
            assert [(await anext(stream)).data["job"] for _ in range(2)] == [second, second]
        async with states(streams, keys, "0") as stream:
            events = [await anext(stream) for _ in range(5)]
            assert [event.event for event in events] == ["ready", "queued", "cancelled", "queued", "cancelled"]
        raw.xtrim(name, maxlen=1, approximate=False)
        for lost in (seen[0].id, f"{2**60}-0"):
            async with states(streams, keys, lost) as stream:
                gap, kept = await anext(stream), await anext(stream)
                assert (gap.event, kept.data["job"]) == ("gap", second)
        raw.delete(name)
        async with states(streams, keys, seen[0].id) as stream:
            assert (await anext(stream)).event == "gap"

    run(settings, test)


def test_a_tenants_states_are_bounded_by_time(lifecycle: Lifecycle, keys: Keys, raw: Any) -> None:
    name = keys("tenant_events", tenant="acme")
    cancelled_job(lifecycle)
    assert 0 < raw.ttl(name) <= 86400
    day_old = (raw.time()[0] - 86400 - 60) * 1000
    raw.delete(name)
    for number in range(300):
        raw.xadd(name, {"event": "queued", "data": "{}"}, id=f"{day_old}-{number + 1}")
    raw.expire(name, 60)
    cancelled_job(lifecycle)
    lifecycle.care()
    assert raw.xlen(name) < 150
