"""Which blobs the records of jobs and runs name: as long as one does, its file is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Final

from services.lifecycle import Lifecycle
from services.redis_client import redis_errors

# Records a call of the script, which must not hold up the server for longer than a few milliseconds.
_CHUNK: Final = 100


def named_blobs(lifecycle: Lifecycle) -> Iterator[str]:
    """Names of all of them, some more than once. Reads every record in pieces, for a sweep once an hour.

    Raises ``Unavailable``.
    """
    records = _keys(lifecycle, "job")
    while some := list(islice(records, _CHUNK)):
        yield from lifecycle.scripts.run("blobs_named", {"records": some})
    for items in _keys(lifecycle, "run_items"):
        cursor = 0
        while True:
            with redis_errors():
                cursor, found = lifecycle.client.hscan(items, cursor, count=_CHUNK)
            yield from filter(None, (json.loads(item).get("result") for item in found.values()))
            if not cursor:
                break


def _keys(lifecycle: Lifecycle, name: str) -> Iterator[str]:
    with redis_errors():
        yield from lifecycle.client.scan_iter(lifecycle.keys(name, tenant="*", id="*"), count=1000)
