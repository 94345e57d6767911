"""Blobs: documents, texts and results as files of one tenant, written whole or not at all, sealed where there is a key.

A file begins with a line ``casemill-blob 1 <owners> <key>``: what it belongs to, so that erasing finds it whatever
died before it was noted anywhere, and the fingerprint of the key that seals the rest, or ``plain``. What is sealed is
bound to the tenant, the name and this line.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from services.durable_files import write_durably
from services.errors import NotFound, Unavailable
from services.seals import Seals
from services.tenant_secrets import TenantSecrets

_NAME = re.compile(r"[a-z]+_[0-9a-f]{64}")
_MAGIC: Final = b"casemill-blob 1 "
_PLAIN: Final = "plain"
_IN_BLOCKS: Final = ":blocks"
# A result can belong to ten thousand documents.
_LONGEST_LINE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a blob's file: the owners, and the fingerprint of their key."""

    owners: tuple[str, ...]
    key: str

    @property
    def line(self) -> bytes:
        """As it stands in the file."""
        return _MAGIC + f"{','.join(self.owners) or '-'} {self.key}\n".encode()

    @classmethod
    def parse(cls, line: bytes) -> Header | None:
        """The header that a line is; ``None`` for the first bytes of a file from before there were headers."""
        owners, space, key = line.removeprefix(_MAGIC).decode("ascii", "replace").strip().partition(" ")
        if not line.startswith(_MAGIC) or not line.endswith(b"\n") or not space:
            return None
        return cls(tuple(owners.split(",")) if owners != "-" else (), key)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A file of the store, one that is still being written among them; ``header`` is ``None`` for one without."""

    path: Path
    header: Header | None

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.path.parent.parent.name


BLOCK_BYTES: Final = 256 * 1024


class Blobs:
    """A content-addressed store under ``<data_dir>/blobs/<tenant>``, shared by all roles of an installation.

    A name is ``<kind>_<HMAC-SHA256 of the bytes under the tenant's key>``: equal bytes of two tenants have different
    names, so that no tenant can probe for what another holds.
    """

    def __init__(self, data_dir: Path, seals: Seals | None = None) -> None:
        self.root = data_dir / "blobs"
        self.seals = seals or Seals(None)
        self.secrets = TenantSecrets(data_dir)

    def put(self, tenant: str, kind: str, data: bytes, *, owners: Collection[str] = (), scope: str = "") -> str:
        """Store bytes; answers the blob's name. Durable on return.

        Equal bytes of the same owners and ``scope`` are one blob: erasing one document never takes a blob of another.
        Raises ``Unavailable`` when the disk is full, ``Erased`` when an owner was erased.
        """
        names = tuple(sorted(set(owners)))
        content = hashlib.sha256(data).digest()
        name = f"{kind}_{self.keyed(tenant, ','.join((*names, scope)).encode() + content)}"
        self._write(tenant, name, names, data)
        return name

    def put_document(self, tenant: str, data: bytes, *, scope: str = "") -> str:
        """Store an uploaded document, the owner of itself; answers its name, which is the document's id.

        Equal bytes of one ``scope`` are one document.
        """
        name = f"doc_{self.keyed(tenant, scope.encode() + hashlib.sha256(data).digest())}"
        if self.seals.keys:
            self.seals.keys.create(tenant, name)
        self._write(tenant, name, (name,), data)
        return name

    def put_blocks(self, tenant: str, name: str, blocks: Iterable[bytes]) -> None:
        """Store what is too large for memory under a :meth:`name`; takes the place of what lay there.

        Durable on return; raises ``Unavailable`` when the disk is full, and what ``blocks`` raises.
        """
        key = self.seals.fingerprint(tenant, ())
        header = Header((), key if key == _PLAIN else f"{key}{_IN_BLOCKS}")
        if key != _PLAIN:
            blocks = self.seals.seal_blocks(tenant, blocks, (), _bound(tenant, name, header))
        self._store(self.path(tenant, name), chain((header.line,), blocks))

    def blocks(self, tenant: str, name: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a blob, or ``length`` of them from ``start`` on, in blocks; raises ``NotFound`` at once."""
        stream = self._open(tenant, name)
        line = stream.readline(_LONGEST_LINE)
        header = Header.parse(line)

        def read() -> Iterator[bytes]:
            with stream:
                if header and header.key.endswith(_IN_BLOCKS):
                    bound = _bound(tenant, name, header)
                    yield from self.seals.open_blocks(tenant, stream, header.owners, bound, start=start, length=length)
                elif header and header.key != _PLAIN:
                    whole = self.get(tenant, name)
                    yield whole[start:] if length is None else whole[start : start + length]
                else:
                    stream.seek((len(line) if header else 0) + start)
                    left = length
                    while block := stream.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left)):
                        left = None if left is None else left - len(block)
                        yield block

        return read()

    def get(self, tenant: str, name: str) -> bytes:
        """The bytes of a blob; raises ``NotFound``, ``Erased`` where they were sealed under a key that is destroyed."""
        with self._open(tenant, name) as stream:
            stored = stream.read()
        end = stored.find(b"\n") + 1
        header = Header.parse(stored[:end])
        if header is None:
            return stored
        if header.key == _PLAIN:
            return stored[end:]
        if header.key.endswith(_IN_BLOCKS):
            return b"".join(self.blocks(tenant, name))
        return self.seals.open_bytes(tenant, stored[end:], header.owners, _bound(tenant, name, header))

    def delete(self, tenant: str, name: str) -> None:
        """Remove a blob; one that is already gone is fine."""
        self.path(tenant, name).unlink(missing_ok=True)

    def path(self, tenant: str, name: str) -> Path:
        """Where a blob lies; raises ``NotFound`` for what cannot be a blob's name."""
        if not _NAME.fullmatch(name):
            raise NotFound(f"{name!r} is not a blob", code="blob_missing")
        digest = name.rpartition("_")[2]
        return self.root / tenant / digest[:2] / name

    def exists(self, tenant: str, name: str) -> bool:
        """Whether a blob is in the store."""
        return self.path(tenant, name).exists()

    def name(self, tenant: str, kind: str, of: str) -> str:
        """The name of the one blob of this kind that belongs to ``of``, whatever it holds."""
        return f"{kind}_{self.keyed(tenant, f'{kind}:{of}'.encode())}"

    def keyed(self, tenant: str, data: bytes) -> str:
        """See :meth:`services.tenant_secrets.TenantSecrets.keyed`."""
        return self.secrets.keyed(tenant, data)

    def stored(self, tenant: str = "*") -> Iterator[StoredBlob]:
        """Every file of a tenant, or of all."""
        for path in self.root.glob(f"{tenant}/*/*"):
            try:
                with path.open("rb") as file:
                    yield StoredBlob(path, Header.parse(file.readline()))
            except FileNotFoundError:
                continue

    def erase(self, tenant: str, owners: Collection[str]) -> int:
        """Remove every file that belongs to one of these owners; answers how many. Reads each file's first line."""
        removed = 0
        for blob in self.stored(tenant):
            if blob.header and not set(owners).isdisjoint(blob.header.owners):
                blob.path.unlink(missing_ok=True)
                removed += 1
        return removed

    def sweep(self, kinds: Collection[str], before: float, named: Callable[[], Iterable[str]]) -> int:
        """Remove blobs of these kinds that nothing names, and files left half-written; answers how many.

        Only what was last stored before an epoch time; ``named``, which is asked if there is such, gives what is named.
        """
        old: dict[str, Path] = {}
        for path in self.root.glob("*/*/*"):
            if (path.name.startswith(".") or path.name.partition("_")[0] in kinds) and _stored_before(path, before):
                old[path.name] = path
        for name in named() if old else ():
            old.pop(name, None)
        removed = 0
        for path in old.values():
            if _stored_before(path, before):  # else it was stored again meanwhile, for a record that was not there yet
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _write(self, tenant: str, name: str, owners: tuple[str, ...], data: bytes) -> None:
        header = Header(owners, self.seals.fingerprint(tenant, owners))
        target = self.path(tenant, name)
        try:
            with target.open("rb") as file:
                same = file.readline() == header.line
            if same:
                os.utime(target)  # its time tells the sweep that it is in use
                return
        except FileNotFoundError:
            pass
        sealed = self.seals.seal_bytes(tenant, data, owners, _bound(tenant, name, header))
        self._store(target, (header.line, sealed))

    def _open(self, tenant: str, name: str) -> BinaryIO:
        try:
            return self.path(tenant, name).open("rb")
        except FileNotFoundError:
            raise NotFound(f"blob {name} is not in the store; was it deleted?", code="blob_missing") from None

    def _store(self, target: Path, blocks: Iterable[bytes]) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_durably(target, blocks)
        except OSError as error:
            raise Unavailable(
                f"the blob store cannot be written ({error.strerror}); free space or check {self.root}",
                code="storage_unavailable",
            ) from error


def _stored_before(path: Path, time: float) -> bool:
    try:
        return path.stat().st_mtime < time
    except FileNotFoundError:
        return False


def _bound(tenant: str, name: str, header: Header) -> bytes:
    return f"{tenant}|{name}|".encode() + header.line
