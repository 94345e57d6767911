"""Connections to the Redis server, typed for decoded strings, and the one translation of its faults into our errors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import redis
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.errors import Unavailable
from services.settings import Settings

# A dead peer must be noticed within seconds; a publish without these can hang for ever.
SOCKET_OPTIONS: dict[str, Any] = {
    "socket_timeout": 10,
    "socket_connect_timeout": 2,
    "health_check_interval": 10,
    "protocol": 2,  # one shape of replies whatever the server would offer
}

# Looked up by name because its type is only partly known upstream.
FROM_URL = "from_url"

Value = str | int | float | bytes


class Commands(Protocol):
    """The commands that Casemill uses; in a pipeline each answers the pipeline and counts when it is executed."""

    def delete(self, *names: str) -> Any: ...
    def evalsha(self, sha: str, numkeys: int, /, *args: str) -> Any: ...
    def exists(self, *names: str) -> Any: ...
    def expire(self, name: str, time: int) -> Any: ...
    def hdel(self, name: str, *keys: str) -> Any: ...
    def hgetall(self, name: str) -> Any: ...
    def hincrby(self, name: str, key: str, amount: int) -> Any: ...
    def hget(self, name: str, key: str) -> Any: ...
    def hmget(self, name: str, keys: Sequence[str]) -> Any: ...
    def hvals(self, name: str) -> Any: ...
    def hset(
        self,
        name: str,
        key: str | None = None,
        value: Value | None = None,
        *,
        mapping: Mapping[str, Value] | None = None,
    ) -> Any: ...
    def hsetnx(self, name: str, key: str, value: Value) -> Any: ...
    def llen(self, name: str) -> Any: ...
    def lrange(self, name: str, start: int, end: int) -> Any: ...
    def scard(self, name: str) -> Any: ...
    def set(
        self, name: str, value: Value, *, ex: int | None = None, px: int | None = None, nx: bool = False
    ) -> Any: ...
    def sadd(self, name: str, *values: str) -> Any: ...
    def smembers(self, name: str) -> Any: ...
    def srem(self, name: str, *values: str) -> Any: ...
    def zadd(self, name: str, mapping: Mapping[str, float], *, nx: bool = False) -> Any: ...
    def zrangebyscore(self, name: str, least: float | str, most: float | str, /, start: int, num: int) -> Any: ...
    def zcard(self, name: str) -> Any: ...
    def zcount(self, name: str, least: float | str, most: float | str) -> Any: ...
    def zrange(self, name: str, start: int, end: int, *, desc: bool = False, withscores: bool = False) -> Any: ...
    def zrank(self, name: str, value: str) -> Any: ...
    def zrevrangebyscore(
        self, name: str, most: float | str, least: float | str, /, start: int, num: int, *, withscores: bool
    ) -> Any: ...
    def zrem(self, name: str, *values: str) -> Any: ...
    def zrevrank(self, name: str, value: str) -> Any: ...
    def zscore(self, name: str, value: str) -> Any: ...


class Pipeline(Commands, Protocol):
    """Commands sent together."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send them; answers one value a command, without ``raise_on_error`` an exception where one is refused."""
        ...


class Script(Protocol):
    """A script and the hash by which the server knows it; called, it is sent where the server does not."""

    script: str
    sha: str

    def __call__(self, *, args: Sequence[str]) -> Any: ...


class Redis(Commands, Protocol):
    """A client for threads whose strings are decoded."""

    def bgrewriteaof(self) -> Any: ...
    def bgsave(self) -> Any: ...
    def close(self) -> None: ...
    def config_get(self, pattern: str) -> dict[str, str]: ...
    def get(self, name: str) -> str | None: ...
    def getdel(self, name: str) -> str | None: ...
    def info(self, section: str) -> dict[str, Any]: ...
    def mget(self, keys: Sequence[str]) -> list[str | None]: ...
    def hscan(self, name: str, cursor: int, *, count: int) -> tuple[int, dict[str, str]]: ...
    def zscan(self, name: str, cursor: int, *, count: int) -> tuple[int, list[tuple[str, float]]]: ...
    def pexpire(self, name: str, time: int) -> bool: ...
    def ping(self) -> bool: ...
    def pipeline(self, transaction: bool = True) -> Pipeline: ...
    def register_script(self, script: str) -> Script: ...
    def script_load(self, script: str) -> str: ...
    def scan_iter(self, match: str, count: int | None = None) -> Generator[str]: ...
    def time(self) -> tuple[int, int]: ...
    def xrange(self, name: str, least: str, most: str, /, *, count: int) -> list[tuple[str, dict[str, str]]]: ...


class AsyncRedis(Protocol):
    """A client for the event loop whose strings are decoded."""

    async def aclose(self) -> None: ...
    async def client_id(self) -> Any: ...
    async def client_unblock(self, client_id: int) -> Any: ...
    async def xrange(self, name: str, *, count: int) -> Any: ...
    async def xrevrange(self, name: str, *, count: int) -> Any: ...
    async def xread(self, streams: Mapping[str, str], *, count: int, block: int) -> Any: ...


def connect(settings: Settings) -> Redis:
    """A pooled client. Does not touch the network yet."""
    from_url: Callable[..., Any] = getattr(redis.Redis, FROM_URL)
    return cast(Redis, from_url(settings.redis_url, decode_responses=True, **SOCKET_OPTIONS))


def connect_alone(settings: Settings, *, block_seconds: float = 0.0) -> AsyncRedis:
    """A client of one connection, whose reads may block for ``block_seconds``; a command that fails is not repeated.

    So the connection is the same until a command has failed.
    """
    from_url: Callable[..., Any] = getattr(redis.asyncio.Redis, FROM_URL)
    options = SOCKET_OPTIONS | {"socket_timeout": SOCKET_OPTIONS["socket_timeout"] + block_seconds}
    options |= {"single_connection_client": True, "retry": Retry(NoBackoff(), 0)}
    return cast(AsyncRedis, from_url(settings.redis_url, decode_responses=True, **options))


@contextmanager
def redis_errors() -> Generator[None]:
    """Turns a server that is away, loading, read-only or out of memory into ``Unavailable``.

    After a time-out the command may have run; every transition is safe to repeat.
    """
    try:
        yield
    except (
        redis.OutOfMemoryError,
        redis.ReadOnlyError,
        redis.exceptions.MasterDownError,
        redis.BusyLoadingError,
    ) as error:
        raise Unavailable(f"Redis refuses writes ({type(error).__name__}): {error}", code="redis_refuses") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise Unavailable(
            f"Redis does not answer ({type(error).__name__}); try again",
            code="redis_away",
        ) from error
    except redis.ResponseError as error:
        text = str(error)
        if text.startswith(("MISCONF", "NOREPLICAS", "BUSY")):
            raise Unavailable(f"Redis refuses writes: {text[:120]}", code="redis_refuses") from error
        raise


def server_time(client: Redis) -> float:
    """Seconds since the epoch on the server's clock, which all times in records are of."""
    with redis_errors():
        seconds, microseconds = client.time()
    return seconds + microseconds / 1e6


def server_info(client: Redis) -> dict[str, str]:
    """Version and durability settings of the server, for ``readyz`` and ``doctor``.

    ``durable`` is ``yes`` only when every write is synced before it is acknowledged.
    """
    with redis_errors():
        info = client.info("server")
        fsync = _durability(client)
    durable = fsync.get("appendonly") == "yes" and fsync.get("appendfsync") == "always"
    return {
        "server": str(info.get("server_name", "redis")),
        "version": str(info.get("valkey_version", info.get("redis_version", "?"))),
        "appendonly": fsync.get("appendonly", "?"),
        "appendfsync": fsync.get("appendfsync", "?"),
        "durable": "yes" if durable else "no",
    }


def _durability(client: Redis) -> dict[str, str]:
    """The append-only settings; empty where the server does not let us ask, as managed ones do."""
    try:
        return client.config_get("append*")
    except redis.ResponseError:
        return {}
