"""Blobs: documents, texts and results as files of one tenant, written whole or not at all."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from services.durable_files import write_durably
from services.errors import NotFound, Unavailable

_NAME = re.compile(r"[a-z]+_[0-9a-f]{64}")
BLOCK_BYTES: Final = 256 * 1024


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
        self._write(target, data)
        return name

    def put_blocks(self, tenant: str, name: str, blocks: Iterable[bytes]) -> None:
        """Store what is too large for memory under a :meth:`name`; takes the place of what lay there.

        Durable on return; raises ``Unavailable`` when the disk is full, and what ``blocks`` raises.
        """
        self._write(self.path(tenant, name), blocks)

    def blocks(self, tenant: str, name: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a blob, or ``length`` of them from ``start`` on, in blocks; raises ``NotFound`` at once."""
        stream = self._open(tenant, name)

        def read() -> Iterator[bytes]:
            with stream:
                stream.seek(start)
                left = length
                while block := stream.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left)):
                    left = None if left is None else left - len(block)
                    yield block

        return read()

    def get(self, tenant: str, name: str) -> bytes:
        """The bytes of a blob; raises ``NotFound``."""
        with self._open(tenant, name) as stream:
            return stream.read()

    def delete(self, tenant: str, name: str) -> None:
        """Remove a blob; one that is already gone is fine."""
        self.path(tenant, name).unlink(missing_ok=True)

    def path(self, tenant: str, name: str) -> Path:
        """Where a blob lies; raises ``NotFound`` for what cannot be a blob's name."""
        if not _NAME.fullmatch(name):
            raise NotFound(f"{name!r} is not a blob", code="blob_missing")
        digest = name.rpartition("_")[2]
        return self._root / tenant / digest[:2] / name

    def name(self, tenant: str, kind: str, of: str) -> str:
        """The name of the one blob of this kind that belongs to ``of``, whatever it holds."""
        return f"{kind}_{self.keyed(tenant, f'{kind}:{of}'.encode())}"

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

    def _open(self, tenant: str, name: str) -> BinaryIO:
        try:
            return self.path(tenant, name).open("rb")
        except FileNotFoundError:
            raise NotFound(f"blob {name} is not in the store; was it deleted?", code="blob_missing") from None

    def _write(self, target: Path, data: bytes | Iterable[bytes]) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_durably(target, data)
        except OSError as error:
            raise Unavailable(
                f"the blob store cannot be written ({error.strerror}); free space or check {self._root}",
                code="storage_unavailable",
            ) from error

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
