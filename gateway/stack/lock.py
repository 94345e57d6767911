"""One stack a data folder: a lock, and who holds it, so that a stack whose supervisor was killed is cleared."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final

import psutil

from services.durable_files import write_durably
from services.errors import Conflict
from services.file_locks import try_lock

END_SECONDS: Final = 10.0


class StackLock:
    """``<data_dir>/up.lock``, and in ``up.json`` process ids with their start times, the first the holder's."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "up.json"
        self._held: IO[bytes] | None = None

    def acquire(self) -> None:
        """Take the lock; ends leftovers of a supervisor that was killed. Raises ``Conflict`` when one runs."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        stream = self._file.with_name("up.lock").open("a+b")
        try:
            if not try_lock(stream):
                raise self._taken()
            self._end_leftovers()
            self.record([])
        except BaseException:
            stream.close()  # with which the system releases it
            raise
        self._held = stream

    def _taken(self) -> Conflict:
        holder = next((f" (process {process.pid})" for process in self._read()[:1] if process), "")
        return Conflict(
            f"a stack runs on {self._file.parent} already{holder}; "
            "stop it with Ctrl-C there, or set CASEMILL_DATA_DIR to another folder",
            code="stack_running",
        )

    def _end_leftovers(self) -> None:
        left = [process for process in self._read() if process and process.pid != os.getpid()]
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in left:
                with contextlib.suppress(psutil.Error):
                    end(process)
            _, left = psutil.wait_procs(left, timeout=END_SECONDS)
        if left:
            pids = ", ".join(str(process.pid) for process in left)
            raise Conflict(
                f"processes of a stack whose supervisor was killed do not end ({pids}); end them, then start again",
                code="stack_running",
            )

    def record(self, children: Iterable[int]) -> None:
        """Write down the processes of this stack."""
        rows: list[tuple[int, float]] = []
        for pid in [os.getpid(), *children]:
            with contextlib.suppress(psutil.Error):
                rows.append((pid, psutil.Process(pid).create_time()))
        write_durably(self._file, json.dumps(rows).encode())

    def release(self) -> None:
        """Give the lock back."""
        self._file.unlink(missing_ok=True)
        if self._held:
            self._held.close()
            self._held = None

    def _recorded(self) -> list[tuple[int, float]]:
        try:
            return [(int(pid), float(created)) for pid, created in json.loads(self._file.read_text(encoding="utf-8"))]
        except (FileNotFoundError, ValueError):
            return []

    def _read(self) -> list[psutil.Process | None]:
        found: list[psutil.Process | None] = []
        for pid, created in self._recorded():
            try:
                process = psutil.Process(pid)
                found.append(process if abs(process.create_time() - created) < 1 else None)
            except psutil.Error:
                found.append(None)
        return found
