"""Records of uploaded documents: whose they are, where their bytes lie, and what was derived from them."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from services.blobs import Blobs
from services.errors import InvalidRequest, NotFound, PayloadTooLarge, unknown
from services.keys import Keys
from services.paging import Page, newest, read_cursor, write_cursor
from services.redis_client import Redis, redis_errors
from services.scripts import Scripts
from services.vector_index import VectorIndex


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
        ``InvalidRequest`` when empty, ``PayloadTooLarge`` where key or tenant may not store as much; nothing is kept.
        """
        if not data:
            raise InvalidRequest("the document is empty; send its bytes as the body", code="document_empty")
        reservation = self._reserve(tenant, len(data), owner, owner_limit)
        # Of one matter: who works on another cannot find out by an upload what this one has, nor does erasing one
        # matter's document take another's.
        blob = self.blobs.put(tenant, "doc", data, scope=matter or "")
        added: dict[str, Any] = {"tenant": tenant, "id": blob, "name": name[:255], "bytes": len(data)}
        self._scripts.run("document_add", added | {"matter": matter or "", "owner": owner, "reservation": reservation})
        return self.get(tenant, blob)

    def _reserve(self, tenant: str, size: int, owner: str, owner_limit: int | None) -> str:
        """Room for bytes that are about to be stored; answers the reservation's name. Raises ``PayloadTooLarge``."""
        reservation = f"{owner}|{size}|{secrets.token_hex(8)}"
        limits = {"owner_limit": owner_limit, "tenant_limit": self._tenant_limit}
        argument: dict[str, Any] = {name: limit for name, limit in limits.items() if limit is not None}
        if not argument:
            return reservation
        argument |= {"tenant": tenant, "owner": owner, "bytes": size, "reservation": reservation}
        if self._scripts.run("storage_reserve", argument) == "full":
            raise PayloadTooLarge(
                "this would be more than the key or its tenant may store; delete documents, or ask an admin for more",
                code="storage_full",
            )
        return reservation

    def get(self, tenant: str, document: str) -> Document:
        """The record of a document; raises ``NotFound``."""
        with redis_errors():
            fields = self._client.hgetall(self._keys("document", tenant=tenant, id=document))
        if not fields:
            raise unknown("document", document)
        return Document(
            id=document,
            name=fields["name"],
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
        documents = self._keys("documents", tenant=tenant)
        source = documents if matter is None else self._keys("matter", tenant=tenant, matter=matter)
        places = newest(self._client, source, read_cursor("documents", cursor), limit + 1)
        found: list[Document] = []
        for place in places[:limit]:
            with suppress(NotFound):  # deleted meanwhile
                document = self.get(tenant, place.name)
                if matters is None or document.matter in matters:
                    found.append(document)
        return Page(found, write_cursor("documents", places[limit - 1]) if len(places) > limit else None)

    def delete(self, tenant: str, document: str) -> None:
        """Remove a document and every output and result derived from it; raises ``NotFound``.

        The record goes first: from then on nothing can be kept under the document.
        """
        blobs: list[str] | None = self._scripts.run("document_remove", {"tenant": tenant, "id": document})
        if blobs is None:
            raise unknown("document", document)
        outputs = self._keys("outputs", tenant=tenant, document=document)
        for blob in {*blobs, document}:
            self.blobs.delete(tenant, blob)
        self.vectors.forget(tenant, set(blobs))
        with redis_errors():
            self._client.delete(outputs)

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
            blob = self._client.hget(self._keys("outputs", tenant=tenant, document=document), version)
        if blob is not None and not self.blobs.path(tenant, blob).exists():
            return None
        return blob

    def keep_output(self, tenant: str, document: str, version: str, blob: str) -> None:
        """Remember an output or a result of this document, so that it is not computed twice and goes with it.

        Raises ``NotFound`` when the document was deleted meanwhile; the blob is then removed.
        """
        argument = {"tenant": tenant, "document": document, "version": version, "blob": blob}
        if not self._scripts.run("keep", argument):
            self.blobs.delete(tenant, blob)
            raise NotFound("the document was deleted while it was worked on", code="document_unknown")
