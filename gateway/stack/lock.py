"""One stack a data folder: a lock that names the processes, so that a stack whose supervisor was killed is cleared."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

from services.durable_files import write_durably
from services.errors import Conflict


class StackLock:
    """``<data_dir>/up.json``: process ids with their start times, of which the first is the supervisor's."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "up.json"

    def acquire(self) -> None:
        """Take the lock; ends leftovers of a supervisor that was killed. Raises ``Conflict`` when one runs."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        alive = [process for process in self._read() if process is not None]
        recorded = self._recorded()
        if alive and recorded and alive[0].pid == recorded[0][0]:
            raise Conflict(
                f"a stack runs on {self._file.parent} already (process {alive[0].pid}); "
                "stop it with Ctrl-C there, or set CASEMILL_DATA_DIR to another folder",
                code="stack_running",
            )
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        psutil.wait_procs(alive, timeout=10)
        self.record([])

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
