"""The master key: a file that unlocks every data key, found, checked, made and replaced here.

Its lines are keys of 32 bytes, base64 or hexadecimal. The first wraps; further ones only unwrap, while a rotation is
under way. It lies outside of the data folder, so that no copy of the data folder holds it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.durable_files import write_durably, write_once
from services.errors import Permanent

KEY_BYTES: Final = 32
_OTHERS: Final = 0o007


@dataclass(frozen=True, slots=True, repr=False)
class MasterKey:
    """One master key; ``id`` names it and tells nothing of it."""

    secret: bytes

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        return hashlib.sha256(b"casemill master key" + self.secret).hexdigest()[:16]


def read_master_keys(path: Path) -> list[MasterKey]:
    """The keys of a file, the one that wraps first.

    Raises ``Permanent`` with the code ``master_key_missing``, ``master_key_open`` or ``master_key_invalid``.
    """
    try:
        if sys.platform != "win32" and path.stat().st_mode & _OTHERS:
            raise Permanent(f"every user can read the master key {path}; `chmod 600 {path}`", code="master_key_open")
        lines = path.read_text("ascii").split()
    except FileNotFoundError:
        raise Permanent(
            f"the master key {path} is not there; put it back from where you keep its copy", code="master_key_missing"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Permanent(
            f"the master key {path} cannot be read ({type(error).__name__})", code="master_key_invalid"
        ) from None
    keys = [_decoded(line) for line in lines]
    if not keys or not all(keys):
        raise Permanent(
            f"{path} holds no master key: 32 bytes as base64 or hexadecimal, e.g. from `openssl rand -base64 32`",
            code="master_key_invalid",
        )
    return [MasterKey(key) for key in keys if key]


def make_master_key(path: Path) -> bool:
    """Make a master key where there is none; answers whether one was made."""
    if path.exists():
        return False
    line = new_line()
    return write_once(path, line) == line


def write_master_keys(path: Path, lines: list[bytes]) -> None:
    """Replace a file's keys, for a rotation."""
    write_durably(path, b"".join(lines))


def line_of(key: MasterKey) -> bytes:
    """A key as a line of its file."""
    return base64.b64encode(key.secret) + b"\n"


def new_line() -> bytes:
    """A new key as a line of its file."""
    return line_of(MasterKey(secrets.token_bytes(KEY_BYTES)))


def _decoded(line: str) -> bytes | None:
    try:
        key = bytes.fromhex(line) if len(line) == 2 * KEY_BYTES else base64.b64decode(line, validate=True)
    except ValueError:
        return None
    return key if len(key) == KEY_BYTES else None
