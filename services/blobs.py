"""Blobs: documents, texts and results as files of one tenant, written whole or not at all."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Collection
from pathlib import Path

from services.durable_files import write_durably
from services.errors import NotFound, Unavailable

_NAME = re.compile(r"[a-z]+_[0-9a-f]{64}")


class Blobs:
    """A content-addressed store under ``<data_dir>/blobs/<tenant>``, shared by all roles of an installation.

    A name is ``<kind>_<HMAC-SHA256 of the bytes under the tenant's key>``: equal bytes of two tenants have different
    names, so that no tenant can probe for what another holds.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "blobs"
        self._secret_file = data_dir / "blob-secret"

    def put(self, tenant: str, kind: str, data: bytes, *, scope: str = "") -> str:
        """Store bytes; answers the blob's name. Durable on return; raises ``Unavailable`` when the disk is full.

        Equal bytes of one ``scope`` are one blob. What belongs to a document has the document as its scope, so that
        erasing one document never takes a blob of another.
        """
        name = f"{kind}_{self.keyed(tenant, scope.encode() + hashlib.sha256(data).digest())}"
        target = self.path(tenant, name)
        if target.exists():
            os.utime(target)  # its time tells the sweep that it is in use
            return name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_durably(target, data)
        except OSError as error:
            raise Unavailable(
                f"the blob store cannot be written ({error.strerror}); free space or check {self._root}",
                code="storage_unavailable",
            ) from error
        return name

    def get(self, tenant: str, name: str) -> bytes:
        """The bytes of a blob; raises ``NotFound``."""
        try:
            return self.path(tenant, name).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"blob {name} is not in the store; was it deleted?", code="blob_missing") from None

    def delete(self, tenant: str, name: str) -> None:
        """Remove a blob; one that is already gone is fine."""
        self.path(tenant, name).unlink(missing_ok=True)

    def path(self, tenant: str, name: str) -> Path:
        """Where a blob lies; raises ``NotFound`` for what cannot be a blob's name."""
        if not _NAME.fullmatch(name):
            raise NotFound(f"{name!r} is not a blob", code="blob_missing")
        digest = name.rpartition("_")[2]
        return self._root / tenant / digest[:2] / name

    def keyed(self, tenant: str, data: bytes) -> str:
        """HMAC-SHA256 of bytes under the tenant's key, in hexadecimal: names them and tells nobody else of them."""
        return hmac.new(self._tenant_key(tenant), data, hashlib.sha256).hexdigest()

    def sweep(self, kinds: Collection[str], before: float) -> int:
        """Remove blobs of these kinds that were last stored before an epoch time; answers how many."""
        removed = 0
        for path in self._root.glob("*/*/*"):
            if path.name.partition("_")[0] in kinds and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _tenant_key(self, tenant: str) -> bytes:
        return hmac.new(self._secret(), tenant.encode(), hashlib.sha256).digest()

    def _secret(self) -> bytes:
        try:
            return self._secret_file.read_bytes()
        except FileNotFoundError:
            self._secret_file.parent.mkdir(parents=True, exist_ok=True)
            candidate = self._secret_file.with_name(f"{self._secret_file.name}.{secrets.token_hex(6)}")
            write_durably(candidate, secrets.token_bytes(32), mode=0o600)
            try:
                # A hard link fails if another process was first; then its secret counts.
                os.link(candidate, self._secret_file)
            except FileExistsError:
                pass
            finally:
                candidate.unlink()
            return self._secret_file.read_bytes()
