"""Writes files that are there whole or not at all, whatever happens; for blobs, catalogs, downloads and small state."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

# On Windows a reader and a replacement can meet for an instant, which refuses the one that came second.
_MEETINGS: Final = 50 if sys.platform == "win32" else 1
_MEETING_SECONDS: Final = 0.02

_T = TypeVar("_T")


def write_durably(target: Path, data: bytes | Iterable[bytes], *, mode: int = 0o600) -> None:
    """Write ``data``, or blocks of it, beside ``target``, then rename: after a crash it is there whole or not at all.

    Readers see the old file or the new one, never a part. Where anything fails, the blocks' source included, nothing is
    left behind and the old file stays. ``mode`` counts less the process's umask. Raises ``OSError``.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    descriptor = _created(temporary, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for block in (data,) if isinstance(data, bytes) else data:
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        _met(lambda: temporary.replace(target))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)  # a rename is durable once its folder is


def write_once(target: Path, data: bytes) -> bytes:
    """Write a small secret file unless it is there; answers what it holds, the same in all processes that meet here."""
    try:
        return target.read_bytes()
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    candidate = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        with os.fdopen(_created(candidate, 0o600), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        # A hard link fails if another process was first; then its content counts.
        os.link(candidate, target)
        sync_folder(target.parent)
    except FileExistsError:
        pass
    finally:
        candidate.unlink(missing_ok=True)
    return target.read_bytes()


def _created(path: Path, mode: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)


def sync_folder(folder: Path) -> None:
    """Make names that were added to a folder or removed from it durable; Windows has no such call."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_replaced(path: Path) -> str | None:
    """The text of a small file that other processes replace, or ``None`` where there is none."""
    try:
        return _met(lambda: path.read_text("utf-8"))
    except FileNotFoundError:
        return None


def _met(action: Callable[[], _T]) -> _T:
    for _ in range(_MEETINGS - 1):
        try:
            return action()
        except PermissionError:
            time.sleep(_MEETING_SECONDS)
    return action()
