"""Seals texts and blobs under data keys by AES-256-GCM, and opens them; without a master key they stay as they are.

What is sealed belongs to **owners**: documents by their ids, matters by :func:`~services.data_keys.matter_owner`, none
for what is the tenant's alone. Once the key of one owner is destroyed, nobody can open it.

Every message has a key of its own, HMAC-SHA256 of 16 random bytes under the data key, so that no number of messages
makes a nonce repeat. A sealed text is ``sealed:1:<owners>:<base64url of salt, nonce, ciphertext>``; a text that stays
as it is and could be mistaken for one is written ``sealed:0:<text>``.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.data_keys import DataKeys, Erased
from services.errors import Permanent
from services.master_key import make_master_key
from services.sealed_blocks import open_blocks, seal_blocks
from services.settings import Settings

MARK: Final = "sealed:"
_SEALED: Final = "sealed:1:"
_PLAIN: Final = "sealed:0:"
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12


class Seals:
    """Seals and opens for one installation; safe for threads."""

    def __init__(self, keys: DataKeys | None) -> None:
        self.keys = keys

    @classmethod
    def of(cls, settings: Settings) -> Seals:
        """The seals that the settings ask for. Raises ``Permanent`` where the data folder's master key is missing."""
        path = settings.master_key_path
        if path is not None and (settings.master_key_file or path.exists()):
            return cls(DataKeys(settings.data_dir, path))
        if _mark(settings).exists():
            raise Permanent(
                f"{settings.data_dir} is sealed and its master key is not "
                + (f"at {path}; put it back, or name its place" if path else "named; name it")
                + " with CASEMILL_MASTER_KEY_FILE",
                code="master_key_missing",
            )
        return cls(None)

    @staticmethod
    def make_master_key(settings: Settings) -> Path | None:
        """Make the master key that the settings expect beside the data folder; answers its place if it was made now.

        None is made where the settings name a place, or where the folder is sealed already and its key was lost.
        """
        path = settings.master_key_path
        if path is None or settings.master_key_file or _mark(settings).exists():
            return None
        return path if make_master_key(path) else None

    @property
    def on(self) -> bool:
        """Whether anything is sealed."""
        return self.keys is not None

    def seal_text(self, tenant: str, kind: str, text: str, owners: Collection[str] = ()) -> str:
        """A text as it may lie in Redis; ``kind`` says what it is and is checked again later. Raises ``Erased``."""
        if self.keys is None:
            return _PLAIN + text if MARK in text else text
        names = ",".join(sorted(set(owners)))
        sealed = self._seal(tenant, owners, text.encode("utf-8", "surrogatepass"), _bound(tenant, kind, names))
        return f"{_SEALED}{names}:{base64.urlsafe_b64encode(sealed).decode()}"

    def open_text(self, tenant: str, kind: str, stored: str) -> str:
        """The text that :meth:`seal_text` was given. Raises ``Erased``."""
        if stored.startswith(_PLAIN):
            return stored.removeprefix(_PLAIN)
        if not stored.startswith(_SEALED):
            return stored
        names, _, data = stored.removeprefix(_SEALED).partition(":")
        opened = self._open(tenant, _split(names), base64.urlsafe_b64decode(data), _bound(tenant, kind, names))
        return opened.decode("utf-8", "surrogatepass")

    def fingerprint(self, tenant: str, owners: Collection[str]) -> str:
        """Names the key that owners have now, or says ``plain``; a key made anew has another. Raises ``Erased``."""
        if self.keys is None:
            return "plain"
        return hmac.digest(self.keys.get(tenant, owners, make=True), b"casemill fingerprint", "sha256").hex()[:16]

    def seal_bytes(self, tenant: str, data: bytes, owners: Collection[str], bound_to: bytes) -> bytes:
        """Bytes sealed and bound to what :meth:`open_bytes` is given again. Raises ``Erased``."""
        return data if self.keys is None else self._seal(tenant, owners, data, bound_to)

    def open_bytes(self, tenant: str, data: bytes, owners: Collection[str], bound_to: bytes) -> bytes:
        """What :meth:`seal_bytes` sealed, on whichever installation it was. Raises ``Erased``."""
        return self._open(tenant, owners, data, bound_to)

    def seal_blocks(
        self, tenant: str, blocks: Iterable[bytes], owners: Collection[str], bound_to: bytes
    ) -> Iterator[bytes]:
        """What is too large for memory, sealed block by block, each bound to its place and the last to being that."""
        salt = secrets.token_bytes(_SALT_BYTES)
        return chain((salt,), seal_blocks(self._cipher(tenant, owners, salt, make=True), blocks, bound_to))

    def open_blocks(
        self,
        tenant: str,
        stream: BinaryIO,
        owners: Collection[str],
        bound_to: bytes,
        *,
        start: int,
        length: int | None,
    ) -> Iterator[bytes]:
        """What :meth:`seal_blocks` sealed, from its place in a stream on, or a part of it. Raises ``Erased``."""
        cipher = self._cipher(tenant, owners, stream.read(_SALT_BYTES))
        try:
            yield from open_blocks(cipher, stream, bound_to, start=start, length=length)
        except (InvalidTag, ValueError):
            raise Erased("it was sealed under a key that was destroyed, or it was changed since") from None

    def _cipher(self, tenant: str, owners: Collection[str], salt: bytes, *, make: bool = False) -> AESGCM:
        if self.keys is None:
            raise Permanent("this is sealed and no master key is set here", code="master_key_missing", status=500)
        return AESGCM(hmac.digest(self.keys.get(tenant, owners, make=make), salt, "sha256"))

    def _seal(self, tenant: str, owners: Collection[str], data: bytes, bound_to: bytes) -> bytes:
        salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
        return salt + nonce + self._cipher(tenant, owners, salt, make=True).encrypt(nonce, data, bound_to)

    def _open(self, tenant: str, owners: Collection[str], data: bytes, bound_to: bytes) -> bytes:
        salt, nonce = data[:_SALT_BYTES], data[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
        cipher = self._cipher(tenant, owners, salt)
        try:
            return cipher.decrypt(nonce, data[_SALT_BYTES + _NONCE_BYTES :], bound_to)
        except (InvalidTag, ValueError):
            # An owner that was erased and came again has another key; what a stranger changed fails alike.
            raise Erased("it was sealed under a key that was destroyed, or it was changed since") from None


def _mark(settings: Settings) -> Path:
    return settings.data_dir / "keys" / "master"


def _bound(tenant: str, kind: str, names: str) -> bytes:
    return f"{tenant}|{kind}|{names}".encode()


def _split(names: str) -> list[str]:
    return names.split(",") if names else []
