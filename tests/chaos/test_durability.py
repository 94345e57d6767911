"""A 202 means on disk: the server's syncs are counted, as a killed process keeps its page cache and proves nothing."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.stack.valkey import EmbeddedValkey
from services.jobs import JobType, Submission
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.conftest import missing

# Counts calls in a file that the test reads; the real calls are made.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
static volatile unsigned long *count;
__attribute__((constructor)) static void start(void) {
    int fd = open(getenv("SYNC_COUNT"), O_RDWR);
    count = mmap(0, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}
static int pass(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    __sync_fetch_and_add(count, 1);
    return real(fd);
}
int fdatasync(int fd) { return pass("fdatasync", fd); }
int fsync(int fd) { return pass("fsync", fd); }
"""


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Lifecycle, Path]]:
    """A queue on a server whose syncs are counted."""
    compiler = shutil.which("cc")
    if sys.platform != "linux":
        pytest.skip("counts by LD_PRELOAD")
    if not compiler:
        missing("a C compiler")
    source, library, count = tmp_path / "shim.c", tmp_path / "shim.so", tmp_path / "count"
    source.write_text(SHIM)
    subprocess.run([str(compiler), "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    count.write_bytes(bytes(8))
    monkeypatch.setenv("SYNC_COUNT", str(count))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    server = EmbeddedValkey(tmp_path / "valkey")
    url = server.start()
    monkeypatch.delenv("LD_PRELOAD")
    lifecycle = Lifecycle(Settings.model_validate({"REDIS_URL": url, "data_dir": tmp_path}))
    yield lifecycle, count
    lifecycle.client.close()
    server.stop()


def syncs(count: Path) -> int:
    return int(struct.unpack("<Q", count.read_bytes())[0])


def submit(lifecycle: Lifecycle) -> None:
    lifecycle.submit(Submission("acme", JobType.ANALYZE, {}))


def test_every_acceptance_waits_for_a_sync(counted: tuple[Lifecycle, Path]) -> None:
    lifecycle, count = counted
    submit(lifecycle)
    for _ in range(25):
        before = syncs(count)
        submit(lifecycle)
        assert syncs(count) > before


def test_acceptances_at_once_share_their_syncs(counted: tuple[Lifecycle, Path]) -> None:
    lifecycle, count = counted
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda _: submit(lifecycle), range(64)))  # connections and script are there
        before = syncs(count)
        list(pool.map(lambda _: submit(lifecycle), range(512)))
    assert 0 < syncs(count) - before < 512
