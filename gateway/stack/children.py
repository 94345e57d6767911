"""Child processes of the stack: started apart from the terminal, their output in a log, ended in order or by force."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from services.errors import CasemillError

LOG_BYTES = 10 * 2**20
BACKOFF_SECONDS = (1, 2, 4, 8, 16, 30)
STEADY_SECONDS = 60


class Stopped(CasemillError):
    """The user asked to stop before the work was done."""

    default_code = "stopped"

    def __init__(self) -> None:
        super().__init__("stopped before it was done")


class Child:
    """One role's process, restarted with growing pauses when it dies."""

    def __init__(self, name: str, command: list[str], env: dict[str, str], logs: Path) -> None:
        self.name = name
        self._command = command
        self._env = env
        self._log = logs / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._due: float | None = None
        self._drained_by: float | None = None
        self.deaths = 0

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self._log

    @property
    def pause(self) -> int:
        """Seconds before the next start; they grow with each death soon after a start."""
        return BACKOFF_SECONDS[min(max(0, self.deaths - 1), len(BACKOFF_SECONDS) - 1)]

    @property
    def pid(self) -> int | None:
        """Process id, while one is started."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process in a session of its own, so that Ctrl-C reaches the supervisor alone."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        self._process = spawn(self._command, self._log, self._env)
        self._started = time.monotonic()

    def died(self) -> int | None:
        """The process id of a process that has just died; a new one is started after a pause."""
        if self._process is None:
            if self._due is not None and time.monotonic() >= self._due:
                self._due = None
                self.start()
            return None
        if self._process.poll() is None:
            return None
        pid, self._process = self._process.pid, None
        self.deaths = 1 if time.monotonic() - self._started > STEADY_SECONDS else self.deaths + 1
        self._due = time.monotonic() + self.pause
        return pid

    def ask_to_stop(self) -> None:
        """Ask the process to end what it does."""
        self._due = None
        if self._process and self._process.poll() is None:
            with contextlib.suppress(OSError):
                number = signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM
                self._process.send_signal(number)

    @property
    def draining(self) -> bool:
        """Whether it was asked to end for good."""
        return self._drained_by is not None

    def drain(self, seconds: float) -> None:
        """Ask the process to end for good, within ``seconds``; :meth:`drained` tells when it has."""
        self._drained_by = time.monotonic() + seconds
        self.ask_to_stop()

    def drained(self) -> bool:
        """Whether a process that was to end has ended; one that is over its time is killed."""
        if self._drained_by is None:
            return False
        if self._process is None:
            return True
        if self._process.poll() is None and time.monotonic() < self._drained_by:
            return False
        self.wait(0)
        return True

    def wait(self, seconds: float) -> None:
        """Wait for the end, then kill what is left of the process and its children."""
        if self._process is None:
            return
        family = descendants(self._process.pid)
        try:
            self._process.wait(timeout=max(0.1, seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process = None


def spawn(command: list[str], log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process apart from the terminal, its output appended to ``log``; ``env`` ``None`` is our own."""
    apart: Any = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    with log.open("ab") as output:
        start: Any = subprocess.Popen
        return start(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **apart)


def descendants(pid: int) -> list[psutil.Process]:
    """Processes below a process."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def child_environment(extra: dict[str, str]) -> dict[str, str]:
    """Our environment with settings for the children."""
    return dict(os.environ) | extra
