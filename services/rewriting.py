"""Rewrites of the server's append-only file: what was deleted is gone from the disk after one that began afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from services.redis_client import Redis, redis_errors


class Rewriting:
    """Asks one server for rewrites and sees when they are done."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def settle(self, asked: Sequence[str | None]) -> tuple[list[bool], str | None]:
        """Which of those who asked for a rewrite have had theirs; the others are to keep the mark that is answered.

        ``asked`` is the mark that each got before, ``None`` for a new one. Without an append-only file all have theirs.
        """
        with redis_errors():
            state = self._client.info("persistence")
            if not state.get("aof_enabled"):
                return [True] * len(asked), None
            if state["aof_rewrite_in_progress"] or state.get("aof_rewrite_scheduled"):
                return [False] * len(asked), None
            mark = str(self._client.info("server")["run_id"])
        # One that was asked for while none was under way has ended when none is under way, unless the server died.
        whole = state.get("aof_last_bgrewrite_status") == "ok"
        done = [whole and before == mark for before in asked]
        if all(done):
            return done, None
        with redis_errors():
            try:
                self._client.bgrewriteaof()
            except redis.ResponseError:  # one began just now: the next round asks again
                return done, None
        return done, mark
