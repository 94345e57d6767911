"""The embedded server for one command: the one that `casemill up` runs, or started for as long as the command takes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.stack.lock import StackLock
from gateway.stack.valkey import EmbeddedValkey, reachable_settings
from services.errors import Unavailable
from services.redis_client import Redis, connect, redis_errors
from services.settings import Settings

DUMP_SECONDS = 600


@contextmanager
def own_server(settings: Settings) -> Generator[Settings]:
    """Settings whose Redis answers: the server of ``REDIS_URL``, or the embedded one of the data folder."""
    if "redis_url" in settings.model_fields_set:
        yield settings
        return
    # Without a URL of its own, the default one may be of anybody's server.
    if (settings.data_dir / "valkey" / "url").exists() and answers(reachable_settings(settings)):
        yield reachable_settings(settings)
        return
    lock = StackLock(settings.data_dir)
    lock.acquire()
    server = EmbeddedValkey(settings.data_dir / "valkey")
    try:
        yield settings.model_copy(update={"redis_url": server.start()})
    finally:
        server.stop()
        lock.release()


def answers(settings: Settings) -> bool:
    """Whether the server of these settings answers."""
    client = connect(settings)
    try:
        with redis_errors():
            return bool(client.ping())
    except Unavailable:
        return False
    finally:
        client.close()


def dump_queue(settings: Settings, target: Path) -> None:
    """Have the embedded server write a snapshot of one moment, and move it to ``target``.

    Raises ``Unavailable`` code ``backup_failed``, ``OSError`` where ``target`` cannot be written.
    """
    client = connect(settings)
    written = settings.data_dir / "valkey" / "dump.rdb"
    try:
        begun = int(_persistence(client)["rdb_saves"])
        with redis_errors():
            client.bgsave()
        until = time.monotonic() + DUMP_SECONDS
        while True:
            state = _persistence(client)
            if int(state["rdb_saves"]) > begun and not state["rdb_bgsave_in_progress"]:
                break
            if time.monotonic() > until:
                raise Unavailable(f"no snapshot within {DUMP_SECONDS} s; look at valkey.log", code="backup_failed")
            time.sleep(0.05)
        if state["rdb_last_bgsave_status"] != "ok":
            raise Unavailable("the server could not write its snapshot; is its disk full?", code="backup_failed")
        shutil.copyfile(written, target)
    finally:
        written.unlink(missing_ok=True)
        client.close()


def _persistence(client: Redis) -> dict[str, Any]:
    with redis_errors():
        return client.info("persistence")
