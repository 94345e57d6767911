"""Files of documents that have no record: what a process leaves that dies between storing a file and noting it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.blobs import Blobs, StoredBlob
from services.data_keys import is_document
from services.keys import Keys
from services.redis_client import Redis, redis_errors

_BATCH: Final = 500


def remove_orphans(client: Redis, keys: Keys, blobs: Blobs, before: float) -> int:
    """Remove such files, last stored before an epoch time; answers how many."""
    removed, batch = 0, list[StoredBlob]()
    for blob in blobs.stored():
        if _documents(blob):
            batch.append(blob)
        if len(batch) == _BATCH:
            removed += _remove(client, keys, batch, before)
            batch.clear()
    return removed + _remove(client, keys, batch, before)


def _remove(client: Redis, keys: Keys, batch: Sequence[StoredBlob], before: float) -> int:
    asked = list({name for blob in batch for name in _documents(blob)})
    with redis_errors():
        pipeline = client.pipeline(transaction=False)
        for tenant, document in asked:
            pipeline.exists(keys("document", tenant=tenant, id=document))
        known = {name for name, there in zip(asked, pipeline.execute(), strict=True) if there}
    removed = 0
    for blob in batch:
        if known.issuperset(_documents(blob)) or not blob.path.exists() or blob.path.stat().st_mtime >= before:
            continue
        blob.path.unlink(missing_ok=True)
        removed += 1
    return removed


def _documents(blob: StoredBlob) -> list[tuple[str, str]]:
    return [(blob.tenant, name) for name in (blob.header.owners if blob.header else ()) if is_document(name)]
