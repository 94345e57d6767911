"""Files as OpenAI's clients know them: a record and a blob each, written and read in blocks, removed in time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from services.blobs import Blobs
from services.errors import Conflict, NotFound, unknown
from services.jobs import new_id
from services.lifecycle import Lifecycle
from services.object_lists import Order, object_page
from services.redis_client import redis_errors, server_time
from services.scripts import pairs
from services.storage_room import Storer, reserve_room

KIND: Final = "file"
# Longer than any upload or output takes to be written.
WRITING_SECONDS: Final = 86400
EXPIRIES_A_ROUND: Final = 20
NOBODY: Final = Storer()


@dataclass(frozen=True, slots=True)
class File:
    """The record of a file; times are epoch seconds, ``expires`` is ``None`` for one that stays until it is deleted."""

    id: str
    filename: str
    bytes: int
    purpose: str
    created: float
    expires: float | None


class Files:
    """Stores, finds and removes the files of tenants; safe for threads."""

    def __init__(self, lifecycle: Lifecycle, blobs: Blobs, *, tenant_limit: int | None = None) -> None:
        self._tenant_limit = tenant_limit  # bytes that all of one tenant may have
        self._client = lifecycle.client
        self._keys = lifecycle.keys
        self._scripts = lifecycle.scripts
        self._records = lifecycle.records
        self._blobs = blobs

    def add(
        self,
        tenant: str,
        blocks: Iterable[bytes],
        *,
        size: int,
        filename: str,
        purpose: str,
        storer: Storer = NOBODY,
        lasts: float | None = None,
    ) -> File:
        """Store a new file of ``size`` bytes that expires after ``lasts`` seconds, if any.

        Raises ``PayloadTooLarge`` where its key or tenant may not store as much.
        """
        reservation = reserve_room(self._scripts, tenant, size, storer, self._tenant_limit)
        file = new_file_id()
        name = self._records.seals.seal_text(tenant, "name", filename[:255], ())
        entry = described(file, name, self.write(tenant, file, blocks), purpose, storer.key, lasts)
        entry["reservation"] = reservation
        return self._file(tenant, file, pairs(self._scripts.run("file_add", {"tenant": tenant, "file": entry})))

    def write(self, tenant: str, file: str, blocks: Iterable[bytes]) -> int:
        """Store the bytes of a file that is recorded next; answers how many. Where nobody records it, they go."""
        size = 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for block in blocks:
                size += len(block)
                yield block

        with redis_errors():
            due = server_time(self._client) + WRITING_SECONDS
            self._client.zadd(self._keys("file_ends"), {f"{tenant}|{file}": due}, nx=True)
        self._blobs.put_blocks(tenant, self._blob(tenant, file), counted())
        return size

    def get(self, tenant: str, file: str) -> File:
        """The record of a file; raises ``NotFound``."""
        with redis_errors():
            fields = self._client.hgetall(self._keys("file", tenant=tenant, id=file))
        if not fields:
            raise unknown("file", file)
        return self._file(tenant, file, fields)

    def list(
        self,
        tenant: str,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> tuple[list[File], bool]:
        """Files of a tenant, of one ``purpose`` if named, and whether there are more; raises ``NotFound``."""

        def find(file: str) -> File | None:
            try:
                found = self.get(tenant, file)
            except NotFound:
                return None
            return found if purpose in (None, found.purpose) else None

        return object_page(
            self._client, self._keys("files", tenant=tenant), find, after=after, limit=limit, order=order
        )

    def blocks(self, tenant: str, file: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a file, or ``length`` of them from ``start`` on; raises ``NotFound`` at once."""
        self.get(tenant, file)
        return self._blobs.blocks(tenant, self._blob(tenant, file), start=start, length=length)

    def remove(self, tenant: str, file: str) -> None:
        """Remove a file; raises ``NotFound``, or ``Conflict`` while a batch reads it."""
        verdict = str(self._scripts.run("file_remove", {"tenant": tenant, "id": file}))
        if verdict == "missing":
            raise unknown("file", file)
        if verdict == "held":
            raise Conflict("a batch reads this file; cancel the batch or wait for its end", code="file_in_use")
        self._erase(tenant, file)

    def expire(self) -> int:
        """Remove what has expired and bytes that have no record, as a crash leaves them; answers how many files."""
        with redis_errors():
            now = server_time(self._client)
            due = self._client.zrangebyscore(self._keys("file_ends"), "-inf", now, start=0, num=EXPIRIES_A_ROUND)
        gone = 0
        for member in due:
            tenant, _, file = member.partition("|")
            verdict = self._scripts.run("file_remove", {"tenant": tenant, "id": file, "due": True})
            if verdict != "held":
                self._erase(tenant, file)
                gone += 1
        return gone

    def _erase(self, tenant: str, file: str) -> None:
        self._blobs.delete(tenant, self._blob(tenant, file))
        with redis_errors():
            self._client.zrem(self._keys("file_ends"), f"{tenant}|{file}")

    def _file(self, tenant: str, file: str, fields: dict[str, str]) -> File:
        return File(
            id=file,
            filename=self._records.name(tenant, fields["filename"]),
            bytes=int(fields["bytes"]),
            purpose=fields["purpose"],
            created=float(fields["created"]),
            expires=float(fields["expires"]) if "expires" in fields else None,
        )

    def _blob(self, tenant: str, file: str) -> str:
        return self._blobs.name(tenant, KIND, file)


def new_file_id() -> str:
    """A new id as OpenAI writes them."""
    return new_id("file").replace("_", "-")


def described(file: str, filename: str, size: int, purpose: str, owner: str, lasts: float | None) -> dict[str, Any]:
    """A file as the scripts record it, a client's name for it sealed; ``owner`` is the key whose room it takes."""
    entry: dict[str, Any] = {"id": file, "filename": filename, "bytes": size, "purpose": purpose, "owner": owner}
    return entry | ({} if lasts is None else {"lasts": lasts})
