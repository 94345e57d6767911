"""Binds the reading process itself before it sees a byte of the file: memory, CPU time, no files, no processes."""

from __future__ import annotations

import math
import sys

from workers.documents.limits import Limits

# A reader needs its libraries, three pipes and no more.
_OPEN_FILES = 64


def confine(limits: Limits) -> None:
    """Set the limits on this process, which can only ever be lowered from here on.

    POSIX: address space, CPU seconds, no core dumps, no writing to files, no further processes. macOS does not
    enforce the address space. Windows: a Job Object of its own with memory, CPU time and a single process.
    """
    # CPU time runs out a little later than the parent's patience, so that the parent is the one to say why.
    seconds = math.ceil(limits.seconds) + 2
    if sys.platform == "win32":
        _join_job(limits.memory_bytes, seconds)
    else:
        _set_rlimits(limits.memory_bytes, seconds)


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _PROCESS_TIME = 0x2
    _ACTIVE_PROCESS = 0x8
    _PROCESS_MEMORY = 0x100
    _DIE_ON_UNHANDLED_EXCEPTION = 0x400
    _KILL_ON_JOB_CLOSE = 0x2000
    _EXTENDED_LIMIT_INFORMATION = 9

    class _Basic(ctypes.Structure):
        _fields_ = (
            ("per_process_user_time_limit", ctypes.c_int64),
            ("per_job_user_time_limit", ctypes.c_int64),
            ("limit_flags", wintypes.DWORD),
            ("minimum_working_set_size", ctypes.c_size_t),
            ("maximum_working_set_size", ctypes.c_size_t),
            ("active_process_limit", wintypes.DWORD),
            ("affinity", ctypes.c_size_t),
            ("priority_class", wintypes.DWORD),
            ("scheduling_class", wintypes.DWORD),
        )

    class _Extended(ctypes.Structure):
        _fields_ = (
            ("basic", _Basic),
            ("io_counters", ctypes.c_uint64 * 6),
            ("process_memory_limit", ctypes.c_size_t),
            ("job_memory_limit", ctypes.c_size_t),
            ("peak_process_memory_used", ctypes.c_size_t),
            ("peak_job_memory_used", ctypes.c_size_t),
        )

    def _join_job(memory_bytes: int, seconds: int) -> None:
        """Put this process into a job of its own.

        The child does it, not the parent: under a virtual environment the parent starts a launcher, which starts the
        interpreter before the parent could act. The job's handle stays open and closes with the process.
        """
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateJobObjectW.restype = wintypes.HANDLE
        kernel.CreateJobObjectW.argtypes = (wintypes.LPVOID, wintypes.LPCWSTR)
        kernel.GetCurrentProcess.restype = wintypes.HANDLE
        kernel.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD)
        kernel.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
        job = kernel.CreateJobObjectW(None, None)
        limits = _Extended()
        limits.basic.limit_flags = (
            _PROCESS_TIME | _ACTIVE_PROCESS | _PROCESS_MEMORY | _DIE_ON_UNHANDLED_EXCEPTION | _KILL_ON_JOB_CLOSE
        )
        limits.basic.per_process_user_time_limit = seconds * 10_000_000  # in 100 ns
        limits.basic.active_process_limit = 1
        limits.process_memory_limit = memory_bytes
        if (
            not job
            or not kernel.SetInformationJobObject(
                job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
            )
            or not kernel.AssignProcessToJobObject(job, kernel.GetCurrentProcess())
        ):
            raise OSError(ctypes.get_last_error(), "the reading process could not be confined")

else:
    import resource

    def _set_rlimits(memory_bytes: int, seconds: int) -> None:
        bounds = [
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_NOFILE, _OPEN_FILES),
            (resource.RLIMIT_NPROC, 0),
        ]
        if sys.platform != "darwin":
            bounds.append((resource.RLIMIT_AS, memory_bytes))
        for kind, bound in bounds:
            hard = resource.getrlimit(kind)[1]
            most = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
            resource.setrlimit(kind, (most, most))
