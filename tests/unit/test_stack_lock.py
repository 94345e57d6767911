"""The lock of a stack: one holder a data folder, whoever comes at the same moment, and nothing left of a killed one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from gateway.stack import lock as locking
from gateway.stack.lock import StackLock
from services.errors import Conflict

HOLDS = """
import sys, time
from pathlib import Path
from gateway.stack.lock import StackLock
lock = StackLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


@contextmanager
def started(code: str, *arguments: str) -> Generator[psutil.Process]:
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline()
            yield psutil.Process(process.pid)
        finally:
            process.kill()


def left_by_a_killed_supervisor(folder: Path, process: psutil.Process) -> None:
    rows = [(process.pid, process.create_time())]
    (folder / "up.json").write_text(json.dumps([(2**22 + 1, 0.0), *rows]))


def test_who_comes_at_the_same_moment_does_not_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = StackLock(tmp_path), StackLock(tmp_path)
    record: Callable[..., None] = first.record

    def another_comes(children: list[int]) -> None:
        with pytest.raises(Conflict) as why:
            second.acquire()
        assert why.value.code == "stack_running"
        record(children)

    monkeypatch.setattr(first, "record", another_comes)
    first.acquire()
    first.release()
    second.acquire()
    second.release()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    lock = StackLock(tmp_path)
    with started(HOLDS, str(tmp_path)) as process, pytest.raises(Conflict, match=f"process {process.pid}"):
        lock.acquire()
    lock.acquire()
    lock.release()


@pytest.mark.skipif(sys.platform == "win32", reason="there nothing is asked to end, it is ended")
def test_leftovers_that_do_not_end_when_asked_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "END_SECONDS", 0.5)
    lock = StackLock(tmp_path)
    with started(DEAF) as deaf:
        left_by_a_killed_supervisor(tmp_path, deaf)
        lock.acquire()
        assert not deaf.is_running()
    lock.release()


def test_no_stack_starts_beside_leftovers_that_cannot_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "END_SECONDS", 0.1)
    lock = StackLock(tmp_path)
    with started(DEAF) as other:
        left_by_a_killed_supervisor(tmp_path, other)
        with monkeypatch.context() as patched:
            for way in ("terminate", "kill"):
                patched.setattr(psutil.Process, way, lambda _: None)
            with pytest.raises(Conflict, match=str(other.pid)):
                lock.acquire()
    lock.acquire()
    lock.release()
