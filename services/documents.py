"""Records of uploaded documents: whose they are, where their bytes lie, and what was derived from them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from services.blobs import Blobs
from services.data_keys import Erased
from services.errors import InvalidRequest, NotFound, Unavailable, unknown
from services.keys import Keys
from services.paging import Page, Place, page_of_newest
from services.redis_client import Redis, redis_errors
from services.scripts import Scripts, pairs
from services.sealed_records import SealedRecords
from services.storage_room import Storer, reserve_room
from services.vector_index import VectorIndex

# A result is stored before its job's end, from which on the record lives for as long as results are kept.
_END_SECONDS: Final = 3600
# Documents of one script: it must not hold up the server for longer than a few milliseconds.
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Document:
    """An uploaded document. ``id`` is an HMAC of its bytes under the tenant's key; ``created`` is epoch seconds."""

    id: str
    name: str
    bytes: int
    matter: str | None
    created: float


class Documents:
    """Stores and finds documents and the outputs derived from them, per tenant."""

    def __init__(self, client: Redis, keys: Keys, blobs: Blobs, *, tenant_limit: int | None = None) -> None:
        self._client = client
        self._keys = keys
        self._tenant_limit = tenant_limit  # bytes that all documents of one tenant may have
        self.blobs = blobs
        self.vectors = VectorIndex(client, keys)
        self._scripts = Scripts(client, {"prefix": keys.prefix})
        self._seals = blobs.seals

    def add(
        self,
        tenant: str,
        data: bytes,
        *,
        name: str,
        matter: str | None = None,
        owner: str = "",
        owner_limit: int | None = None,
    ) -> Document:
        """Store a document; the same bytes of one matter give the same document again, under the name given last.

        ``owner`` is the key that stores it, ``owner_limit`` how many bytes that may have stored. Raises
        ``InvalidRequest`` when empty, ``PayloadTooLarge`` where key or tenant may not store as much, ``Unavailable``
        while it or its matter is being erased; nothing is kept.
        """
        if not data:
            raise InvalidRequest("the document is empty; send its bytes as the body", code="document_empty")
        reservation = reserve_room(self._scripts, tenant, len(data), Storer(owner, owner_limit), self._tenant_limit)
        added: dict[str, Any] = {"tenant": tenant, "bytes": len(data), "matter": matter or ""}
        added |= {"owner": owner, "reservation": reservation}
        while True:
            try:
                # Of one matter: who works on another cannot find out by an upload what this one has, nor does erasing
                # one matter's document take another's.
                blob = self.blobs.put_document(tenant, data, scope=matter or "")
                sealed = self._seals.seal_text(tenant, "name", name[:255], (blob,))
            except Erased:  # an erasure of an earlier upload took the key in between
                continue
            verdict, value = self._scripts.run("document_add", added | {"id": blob, "name": sealed})
            if verdict == "erasing":
                raise Unavailable(f"{value} is being erased; try again in a moment", code="erasing")
            if self.blobs.exists(tenant, blob):  # else an erasure of an earlier upload ended in between
                return self._document(blob, pairs(value), name[:255])

    def get(self, tenant: str, document: str) -> Document:
        """The record of a document; raises ``NotFound``."""
        with redis_errors():
            fields = self._client.hgetall(self._keys("document", tenant=tenant, id=document))
        if not fields:
            raise unknown("document", document)
        return self._document(
            document, fields, SealedRecords(self._seals, self.blobs.secrets).name(tenant, fields["name"])
        )

    @staticmethod
    def _document(document: str, fields: dict[str, str], name: str) -> Document:
        return Document(
            id=document,
            name=name,
            bytes=int(fields["bytes"]),
            matter=fields["matter"] or None,
            created=float(fields["created"]),
        )

    def list(
        self,
        tenant: str,
        *,
        matter: str | None = None,
        matters: Collection[str] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Document]:
        """The documents of a tenant or of a matter, of these ``matters`` alone, newest first.

        Raises code ``cursor_invalid``.
        """
        if matter is not None:
            matters = {matter} if matters is None or matter in matters else set[str]()
        names = [self._keys("documents", tenant=tenant)]
        if matters is not None:
            names = [self._keys("matter", tenant=tenant, matter=name) for name in matters]

        def rows(places: Sequence[Place]) -> Iterator[tuple[Place, Document]]:
            for place in places:
                with suppress(NotFound):  # deleted meanwhile
                    yield place, self.get(tenant, place.name)

        return page_of_newest(self._client, "documents", names, rows, cursor=cursor, limit=limit)

    def delete(self, tenant: str, document: str) -> None:
        """Remove a document that was refused, with every output derived from it; raises ``NotFound``.

        The record goes first: from then on nothing can be kept under the document. What jobs and runs hold of one that
        was worked on, :class:`~services.erasure.Erasures` removes.
        """
        if not self._scripts.run("document_remove", {"tenant": tenant, "id": document}):
            raise unknown("document", document)
        self.forget(tenant, [document])

    def forget(self, tenant: str, documents: Sequence[str]) -> int:
        """Remove keys, bytes and outputs of documents that have no record any more; answers how many blobs there were.

        The keys go first: whatever is interrupted afterwards, nothing can be read any more.
        """
        if self._seals.keys:
            for document in documents:
                self._seals.keys.destroy(tenant, document)
        blobs: set[str] = set()
        for document in documents:
            with redis_errors():
                of_document = {*self._client.hvals(self._outputs(tenant, document)), document}
            of_document |= {blob for _, blob in self._results_of(tenant, document)}
            for blob in of_document:
                self.blobs.delete(tenant, blob)
            blobs |= of_document
        self.vectors.forget(tenant, blobs)
        with redis_errors():
            pipeline = self._client.pipeline()
            for document in documents:
                pipeline.delete(
                    self._outputs(tenant, document), self._keys("results", tenant=tenant, document=document)
                )
            pipeline.execute()
        return len(blobs)

    def _outputs(self, tenant: str, document: str) -> str:
        return self._keys("outputs", tenant=tenant, document=document)

    def jobs_of(self, tenant: str, document: str) -> list[str]:
        """Jobs whose results are about a document or quote it, as long as they are kept."""
        return list(dict.fromkeys(job for job, _ in self._results_of(tenant, document)))

    def _results_of(self, tenant: str, document: str) -> list[tuple[str, str]]:
        """Jobs and the blobs of their results."""
        with redis_errors():
            members: list[str] = self._client.zrange(self._keys("results", tenant=tenant, document=document), 0, -1)
        return [(job, blob) for job, _, blob in (member.partition("|") for member in members)]

    def in_matter(self, tenant: str, matter: str) -> int:
        """How many documents a matter has."""
        with redis_errors():
            return int(self._client.zcard(self._keys("matter", tenant=tenant, matter=matter)))

    def of_matter(self, tenant: str, matter: str) -> list[str]:
        """Ids of the documents that a matter has now, in the order in which they were uploaded."""
        with redis_errors():
            return self._client.zrange(self._keys("matter", tenant=tenant, matter=matter), 0, -1)

    def output(self, tenant: str, document: str, version: str) -> str | None:
        """Blob of a step's output for this document, if that very version was computed before."""
        with redis_errors():
            blob = self._client.hget(self._outputs(tenant, document), version)
        if blob is not None and not self.blobs.exists(tenant, blob):
            return None
        return blob

    def keep_output(self, tenant: str, document: str, version: str, blob: str) -> None:
        """Remember an output of this document, so that it is not computed twice and goes with it.

        Raises ``NotFound`` when the document was deleted meanwhile; the blob is then removed.
        """
        self._keep("keep", {"tenant": tenant, "document": document, "version": version, "blob": blob})

    def keep_result(self, tenant: str, documents: Sequence[str], job: str, blob: str, *, kept_seconds: int) -> None:
        """Remember a job's result about these documents, or that quotes them, so that it goes with each.

        It is known for as long as results are kept after their job's end, ``kept_seconds``. Raises ``NotFound`` when
        one was deleted meanwhile; the blob is then removed.
        """
        named = {"tenant": tenant, "job": job, "blob": blob, "seconds": kept_seconds + _END_SECONDS}
        for begin in range(0, len(documents), _AT_ONCE):
            self._keep("keep_result", named | {"documents": documents[begin : begin + _AT_ONCE]})

    def _keep(self, script: str, argument: dict[str, Any]) -> None:
        if not self._scripts.run(script, argument):
            self.blobs.delete(argument["tenant"], argument["blob"])
            raise NotFound("the document was deleted while it was worked on", code="document_unknown")
