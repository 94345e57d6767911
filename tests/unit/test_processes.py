"""What a process tells its interpreter and its system, in processes of their own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from services.processes import NICE
from workers.__main__ import main

GIVES_WAY = """
import json, os, threading
from pathlib import Path
from services.processes import give_way
ended = threading.Event()
before = threading.Thread(target=ended.wait)
before.start()
give_way()
after = threading.Thread(target=ended.wait)
after.start()
threads = [before.native_id, after.native_id, os.getpid()]
group = Path("/proc/self/autogroup")
print(json.dumps([
    [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads],
    (group.read_text().split() or [None])[-1] if group.exists() else None,
]))
ended.set()
"""
STAYS = """
import gc
from services.processes import keep_for_good
kept = [[] for _ in range(1000)]
keep_for_good()
print(gc.get_freeze_count() >= len(kept), len(gc.get_objects()) < len(kept))
"""
ONE_HEAP = """
import ctypes, threading
from services.processes import share_one_heap
%s
kept = []
held = threading.Barrier(5)
def hold():
    kept.append(bytes(10_000))
    held.wait()
threads = [threading.Thread(target=hold) for _ in range(4)]
for thread in threads:
    thread.start()
held.wait()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def answer_of(code: str, *, own_session: bool = False) -> str:
    """What a Python process prints that runs this."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, start_new_session=own_session).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux alone")
def test_threads_of_before_and_after_give_way_and_so_does_a_session_of_our_own() -> None:
    mine, group = json.loads(answer_of(GIVES_WAY, own_session=True))
    assert mine == [max(NICE, os.getpriority(os.PRIO_PROCESS, 0))] * 3
    assert group == (str(NICE) if Path("/proc/self/autogroup").exists() else None)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this system does not weigh sessions")
def test_the_session_of_somebody_else_keeps_its_weight() -> None:
    shell = (Path("/proc/self/autogroup").read_text(encoding="ascii").split() or [None])[-1]
    mine, group = json.loads(answer_of(GIVES_WAY))
    assert mine == [max(NICE, os.getpriority(os.PRIO_PROCESS, 0))] * 3
    assert group == shell


def test_what_a_process_made_at_its_start_is_looked_through_no_more() -> None:
    assert answer_of(STAYS) == "True True\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps of threads are glibc's")
def test_threads_share_one_heap() -> None:
    assert answer_of(ONE_HEAP % "").count("<heap nr=") > 1
    assert answer_of(ONE_HEAP % "share_one_heap()").count("<heap nr=") == 1


def test_a_worker_shares_one_heap_before_it_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr("workers.__main__.share_one_heap", lambda: done.append("one heap"))
    monkeypatch.setattr("workers.worker.run_worker", lambda *_: done.append("runs") or 0)
    assert main(["run"]) == 0
    assert done == ["one heap", "runs"]
