"""Starts a process for one file and makes sure that it ends: at its time limit, on cancellation, or by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_CHUNK = 1 << 20
_LOOK_AGAIN = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the process ended: its exit status, negative for a signal, and what it wrote to stdout.

    ``ending`` is ``exited``, or why it was killed: ``timeout``, ``cancelled`` or ``too_much_output``.
    """

    ending: str
    status: int
    output: bytes


def run_process(
    command: Sequence[str],
    source: Path | bytes,
    *,
    seconds: float,
    most_output: int,
    cancelled: Callable[[], bool],
    variables: Mapping[str, str] | None = None,
) -> Outcome:
    """Run ``command`` with the file, or one of these bytes, as its stdin, no environment but ``variables``.

    What it writes to stderr is thrown away.
    The process never outlives this call. ``cancelled`` is asked some ten times a second.
    """
    with source.open("rb") if isinstance(source, Path) else _file_of(source) as stdin:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment() | dict(variables or {}),
            cwd=Path(sys.prefix).anchor or None,
            creationflags=subprocess.CREATE_NO_WINDOW if sys.platform == "win32" else 0,
        )
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    drain = _Drain(process.stdout, most_output)
    try:
        ending = _wait(process, drain, time.monotonic() + seconds, cancelled)
    finally:
        if process.poll() is None:
            process.kill()
        status = process.wait()
        drain.join()
        process.stdout.close()
    return Outcome(ending, status, b"".join(drain.chunks) if ending == "exited" else b"")


def _file_of(data: bytes) -> IO[bytes]:
    """An anonymous file, in memory where the system has such, as what it holds may be sealed elsewhere."""
    if sys.platform == "linux":
        file: IO[bytes] = os.fdopen(os.memfd_create("casemill"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller enters it
    file.write(data)
    file.seek(0)
    return file


def _environment() -> dict[str, str]:
    """Nothing, but for what Windows needs to load libraries."""
    names = ("SYSTEMROOT",) if sys.platform == "win32" else ()
    return {name: os.environ[name] for name in names if name in os.environ}


def _wait(process: subprocess.Popen[bytes], drain: _Drain, deadline: float, cancelled: Callable[[], bool]) -> str:
    while True:
        left = deadline - time.monotonic()
        # The end of its output is the end of the process, so a quick reading is not slowed by looking.
        if drain.ended.wait(min(_LOOK_AGAIN, max(0.0, left))):
            if drain.overflowed:
                return "too_much_output"
            try:
                process.wait(min(_LOOK_AGAIN, max(0.0, left)))
            except subprocess.TimeoutExpired:
                pass
            else:
                return "exited"
        if left <= 0:
            return "timeout"
        if cancelled():
            return "cancelled"


class _Drain:
    """Reads a pipe to its end on a thread of its own, so that the process never waits for us; stops at a bound."""

    def __init__(self, pipe: IO[bytes], most: int) -> None:
        self.chunks: list[bytes] = []
        self.ended = threading.Event()
        self.overflowed = False
        self._thread = threading.Thread(target=self._read, args=(pipe, most), name="reader-output", daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[bytes], most: int) -> None:
        left = most
        try:
            while chunk := os.read(pipe.fileno(), _CHUNK):
                left -= len(chunk)
                if left < 0:
                    self.overflowed = True
                    return
                self.chunks.append(chunk)
        finally:
            self.ended.set()

    def join(self) -> None:
        """Wait for the thread; the process is gone by now, and with it the other end of the pipe."""
        self._thread.join()
