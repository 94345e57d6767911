"""Which blob of a tenant holds the vector of a text: an index alone, the vectors lie in the blobs of their documents.

A text is named by :meth:`~services.blobs.Blobs.keyed` of it and its model, so the index neither shows a text nor serves
another tenant or model. An entry may be stale: where the blob is gone or holds no such text, nothing is known of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from services.keys import Keys
from services.redis_client import Redis, redis_errors
from services.scripts import Scripts

GENERATION: Final = 32_768
"""Entries until the older generation is dropped; a tenant has at most twice as many, 137 bytes each in Valkey 8.1."""
LIFETIME_SECONDS: Final = 30 * 24 * 3600
# Entries a call of the script: it must not hold up the server for longer than a few milliseconds.
CHUNK: Final = 1000


class VectorIndex:
    """The index of each tenant; safe from any thread."""

    def __init__(
        self, client: Redis, keys: Keys, *, generation: int = GENERATION, lifetime_seconds: int = LIFETIME_SECONDS
    ) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client, {"prefix": keys.prefix})
        self._generation = generation
        self._lifetime_seconds = lifetime_seconds

    def find(self, tenant: str, texts: Sequence[str]) -> list[str | None]:
        """For each keyed text the blob that held its vector last, in one round trip."""
        if not texts:
            return []
        with redis_errors():
            pipeline = self._client.pipeline(transaction=False)
            for name in ("vectors", "vectors_before"):
                pipeline.hmget(self._keys(name, tenant=tenant), texts)
            current, before = pipeline.execute()
        return [new or old for new, old in zip(current, before, strict=True)]

    def add(self, tenant: str, document: str, blob: str, texts: Sequence[str]) -> None:
        """Note that ``blob``, an output of ``document``, holds these texts; does nothing when the document is gone."""
        for at in range(0, len(texts), CHUNK):
            argument = {
                "tenant": tenant,
                "document": document,
                "blob": blob,
                "texts": list(texts[at : at + CHUNK]),
                "limit": self._generation,
                "seconds": self._lifetime_seconds,
            }
            if not self._scripts.run("vectors", argument):
                return

    def forget(self, tenant: str, blobs: Collection[str]) -> None:
        """Remove what refers to these blobs. Reads the tenant's whole index, in pieces: erasures are rare."""
        for name in ("vectors", "vectors_before"):
            key, cursor = self._keys(name, tenant=tenant), 0
            with redis_errors():
                while True:
                    cursor, found = self._client.hscan(key, cursor, count=CHUNK)
                    if stale := [text for text, blob in found.items() if blob in blobs]:
                        self._client.hdel(key, *stale)
                    if not cursor:
                        break
