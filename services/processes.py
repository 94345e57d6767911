"""What a process of ours tells its interpreter and its system: where memory comes from, what stays, who goes first."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

# A third of the processor time of whoever wants it as well.
NICE = 5
# The system lets one such change in a tenth of a second through, whoever asks.
_TRIES, _TRY_SECONDS = 10, 0.1
_M_ARENA_MAX = -8  # malloc.h of glibc


def share_one_heap() -> None:
    """Have all threads to come allocate from one heap, where the C library is glibc; others do as they do.

    It gives threads heaps of their own, eight a core, and each keeps what the largest document took of it: a worker
    grew for as long as it read documents, though it held no more of them. Threads of Python seldom meet there.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def keep_for_good() -> None:
    """Modules, routes and models stay as long as the process: the garbage collector looks through them no more.

    At each full collection they would hold up whatever runs.
    """
    gc.collect()
    gc.freeze()


def give_way() -> None:
    """Let processes that answer people go first where both want the processor; idle time is this one's as before."""
    process = psutil.Process()
    if sys.platform == "win32":
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        return
    nice = max(NICE, int(process.nice()))
    process.nice(nice)
    if sys.platform != "linux":
        return
    for thread in process.threads():  # each has its own here; those to come have that of who starts them
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, thread.id, nice)
    # Sessions are weighed against each other and niceness within one alone, and a stack gives each role its own.
    session = Path("/proc/self/autogroup")
    if os.getsid(0) == os.getpid() and session.exists():
        for _ in range(_TRIES):
            try:
                session.write_text(str(NICE), encoding="ascii")
                return
            except OSError:  # another role's turn just now
                time.sleep(_TRY_SECONDS)
