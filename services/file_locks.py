"""Locks on files against all other processes of this machine, which the system releases when their process dies."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from services.errors import Unavailable

LOCK_SECONDS: Final = 60.0


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Hold the lock file ``path`` against all other processes of this machine; ``Unavailable`` after a minute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        deadline = time.monotonic() + LOCK_SECONDS
        while not try_lock(stream):
            if time.monotonic() > deadline:
                raise Unavailable(f"Another process has held {path} for a minute. Try again when it is done.")
            time.sleep(0.02)
        try:
            yield
        finally:
            unlock(stream)


if sys.platform == "win32":
    import msvcrt

    def try_lock(stream: IO[bytes]) -> bool:
        """Lock an open file, unless another holds it; answers whether it is ours."""
        stream.seek(0)
        with suppress(OSError):
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
            return True
        return False

    def unlock(stream: IO[bytes]) -> None:
        """Give the lock back."""
        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def try_lock(stream: IO[bytes]) -> bool:
        """Lock an open file, unless another holds it; answers whether it is ours."""
        with suppress(OSError):
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def unlock(stream: IO[bytes]) -> None:
        """Give the lock back."""
        fcntl.flock(stream.fileno(), fcntl.LOCK_UN)
