"""Data keys: one for each document, matter and tenant, wrapped under the tenant's key; to destroy one is to erase.

A data key is a file of ``<data_dir>/keys/<tenant>/`` that holds it wrapped by AES-256-GCM under a key which HKDF
derives from the master key for this tenant. Only these files know a data key: no blob, no record and no snapshot of a
backup holds it, so what was sealed under it is lost with its file, wherever copies lie.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.durable_files import sync_folder, write_durably, write_once
from services.errors import NotFound, Permanent, Unavailable
from services.master_key import KEY_BYTES, MasterKey, line_of, new_line, read_master_keys, write_master_keys

_NONCE_BYTES: Final = 12
_KEPT: Final = 4096


class Erased(NotFound):
    """What was sealed under this key is erased."""

    default_code = "erased"


def tenant_owner(tenant: str) -> str:
    """Name of the key of what belongs to no document and no matter. Hashed, as names differ in case alone."""
    return f"tenant_{hashlib.sha256(tenant.encode()).hexdigest()}"


def is_document(owner: str) -> bool:
    """Whether an owner is a document, whose key is made with it and never again."""
    return owner.startswith("doc_")


def matter_owner(tenant: str, matter: str) -> str:
    """Name of a matter's key."""
    return f"matter_{hashlib.sha256(f'{tenant}|{matter}'.encode()).hexdigest()}"


class DataKeys:
    """The keys of one installation; safe for threads, and for processes that share the folder."""

    def __init__(self, data_dir: Path, master_file: Path) -> None:
        """Raises ``Permanent`` where the master key is missing, or is not the one that this folder is sealed with."""
        self.folder = data_dir / "keys"
        self._master_file = master_file
        self._masters: tuple[tuple[int, int], list[MasterKey]] | None = None
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], tuple[tuple[int, int], bytes]] = OrderedDict()
        if not self._mark.exists():
            self._adopt(data_dir / "blobs")
        sealed_with = write_once(self._mark, self.masters()[0].id.encode()).decode().split()
        if not {key.id for key in self.masters()} & set(sealed_with):
            raise Permanent(
                f"{data_dir} is sealed with another master key than {master_file} (it is {' or '.join(sealed_with)}); "
                "put back the one it was made with",
                code="master_key_other",
            )

    @property
    def _mark(self) -> Path:
        return self.folder / "master"

    def _adopt(self, blobs: Path) -> None:
        """Give documents from before there was a master key their keys, so that what is derived of them is sealed."""
        for document in blobs.glob("*/*/doc_*"):
            self.create(document.parent.parent.name, document.name)

    def masters(self) -> list[MasterKey]:
        """The master keys as their file is now, so that a rotation reaches processes that run."""
        stamp = _stamp(self._master_file)
        if self._masters is None or stamp != self._masters[0]:
            self._masters = ((stamp or (0, 0)), read_master_keys(self._master_file))
        return self._masters[1]

    def get(self, tenant: str, owners: Iterable[str], *, make: bool = False) -> bytes:
        """The key of what belongs to all these owners: lost as soon as one of theirs is.

        ``make`` has matters and the tenant get theirs; those of documents are made with their documents alone.
        Raises ``Erased``.
        """
        names = sorted(set(owners)) or [tenant_owner(tenant)]
        keys = [self._one(tenant, name, make=make and not is_document(name)) for name in names]
        return keys[0] if len(keys) == 1 else _derived(b"".join(keys), f"casemill joint key {' '.join(names)}")

    def create(self, tenant: str, owner: str) -> None:
        """Make an owner's key unless it has one. Raises ``Unavailable`` when the disk is full."""
        path = self._path(tenant, owner)
        if path.exists():
            return
        try:
            write_once(path, self._wrapped(tenant, owner, secrets.token_bytes(KEY_BYTES)))
        except OSError as error:
            raise Unavailable(
                f"the key store cannot be written ({error.strerror}); free space or check {self.folder}",
                code="storage_unavailable",
            ) from error

    def destroy(self, tenant: str, owner: str) -> bool:
        """Destroy an owner's key, durably; answers whether there was one."""
        path = self._path(tenant, owner)
        with self._lock:
            self._known.pop((tenant, owner), None)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        sync_folder(path.parent)
        return True

    def exists(self, tenant: str, owner: str) -> bool:
        """Whether an owner has a key."""
        return self._path(tenant, owner).exists()

    def rotate_master(self) -> int:
        """Wrap every key under a new master key, which takes the present one's place; answers how many keys.

        Processes that run read the file again when it changes. One that was interrupted goes on with the key it made.
        """
        present = read_master_keys(self._master_file)
        if len(present) == 1:
            write_master_keys(self._master_file, [new_line(), line_of(present[0])])
        count = self.rewrap()
        count += self.rewrap()  # what a process wrapped that had not read the file again
        write_master_keys(self._master_file, [line_of(read_master_keys(self._master_file)[0])])
        self.rewrap()
        return count

    def rewrap(self) -> int:
        """Wrap every key that is not under the first master key anew; answers how many. Safe to repeat."""
        wraps = self.masters()[0].id
        write_durably(self._mark, " ".join(key.id for key in self.masters()).encode())
        count = 0
        for tenant, owner, path in self._all():
            stored = path.read_bytes()
            if stored[:16] != wraps.encode():
                write_durably(path, self._wrapped(tenant, owner, self._unwrapped(tenant, owner, stored)))
                count += 1
        return count

    def _all(self) -> Iterator[tuple[str, str, Path]]:
        for path in self.folder.glob("*/[!.]*"):
            yield path.parent.name, path.name, path

    def _one(self, tenant: str, owner: str, *, make: bool) -> bytes:
        path = self._path(tenant, owner)
        stamp = _stamp(path)
        if stamp is None and make:
            self.create(tenant, owner)
            stamp = _stamp(path)
        if stamp is None:
            raise Erased("it was erased, and its key with it")
        with self._lock:
            known = self._known.get((tenant, owner))
        if known and known[0] == stamp:  # a file of its own: a key that was destroyed and made again is another
            return known[1]
        try:
            key = self._unwrapped(tenant, owner, path.read_bytes())
        except FileNotFoundError:
            raise Erased("it was erased, and its key with it") from None
        with self._lock:
            self._known[tenant, owner] = (stamp, key)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return key

    def _wrapped(self, tenant: str, owner: str, key: bytes) -> bytes:
        master, nonce = self.masters()[0], secrets.token_bytes(_NONCE_BYTES)
        sealed = AESGCM(_tenant_key(master, tenant)).encrypt(nonce, key, f"{tenant}|{owner}".encode())
        return master.id.encode() + nonce + sealed

    def _unwrapped(self, tenant: str, owner: str, stored: bytes) -> bytes:
        name, nonce, sealed = stored[:16], stored[16 : 16 + _NONCE_BYTES], stored[16 + _NONCE_BYTES :]
        for master in self.masters():
            if master.id.encode() == name:
                try:
                    return AESGCM(_tenant_key(master, tenant)).decrypt(nonce, sealed, f"{tenant}|{owner}".encode())
                except InvalidTag:
                    break
        raise Permanent(
            f"the data key {owner} of the tenant {tenant} cannot be unwrapped by {self._master_file}",
            code="data_key_damaged",
            status=500,
        )

    def _path(self, tenant: str, owner: str) -> Path:
        return self.folder.joinpath(tenant, owner)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _tenant_key(master: MasterKey, tenant: str) -> bytes:
    return _derived(master.secret, f"casemill tenant key {tenant}")


def _derived(secret: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode()).derive(secret)
