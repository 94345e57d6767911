"""A full disk refuses work with a clear code and takes nothing half; what was accepted goes on once there is space."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.stack.supervisor import Stack
from gateway.stack.valkey import EmbeddedValkey
from services.access import Access
from services.errors import Unavailable
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.chaos.installation import LEASE, ended_once, mortal_gateway, real_worker
from tests.conftest import missing, wait_until

# Larger than a record may hold, so that it lies in a blob.
PROMPT = "notice " * 3000


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Generator[Path]:
    """A file system of its own."""
    if sys.platform != "linux" or os.geteuid():
        missing("the root that may mount a file system")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def full(folder: Path) -> Generator[None]:
    """Not a byte left on the disk."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass
    yield
    filler.unlink()


def post(client: httpx.Client, number: int) -> httpx.Response:
    body = {"type": "generate", "input": {"prompt": f"{number} {PROMPT}", "max_tokens": 8}}
    return client.post("/v1/jobs", json=body, headers={"Idempotency-Key": f"key-{number}"})


def jobs_of(queue: Lifecycle) -> list[str]:
    raw: Any = queue.client
    return raw.zrange(queue.keys("jobs", tenant="acme"), 0, -1)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 16) as folder:
        yield folder


def serving(stack: ExitStack, settings: Settings) -> tuple[Lifecycle, httpx.Client]:
    """The queue and a gateway of an installation with one worker."""
    queue = Lifecycle(settings)
    stack.callback(queue.client.close)
    key = Access(queue.client, queue.keys).create("chaos", tenant="acme")
    stack.enter_context(real_worker(settings, "writer", "generate,embed"))
    client = stack.enter_context(mortal_gateway(settings, key))
    wait_until(lambda: client.get("/v1/workers").json()["data"], 60, "the worker's announcement")
    return queue, client


@pytest.mark.slow
def test_a_full_blob_store_refuses_and_recovers(valkey: EmbeddedValkey, disk: Path) -> None:
    values = {"REDIS_URL": valkey.url, "lease_seconds": LEASE, "data_dir": disk, "engine": "fake"}
    with ExitStack() as stack:
        queue, client = serving(stack, Settings.model_validate(values))
        accepted = [post(client, 0).json()["id"]]
        ended_once(queue, accepted)
        blobs = sorted(path.name for path in disk.rglob("in_*"))
        with full(disk):
            refused = post(client, 1)
            assert refused.status_code == 503, refused.text
            assert refused.json()["code"] == "storage_unavailable"
            assert refused.headers["Retry-After"]
            assert jobs_of(queue) == accepted
            assert sorted(path.name for path in disk.rglob("in_*")) == blobs
            # Nothing of a small one needs the disk until a result does that is too large for the record.
            body = {"type": "embed", "input": {"texts": ["short"] * 16}}
            accepted.append(client.post("/v1/jobs", json=body).json()["id"])
            wait_until(lambda: queue.counters().get("retries"), 30, "a result that finds no room")
        accepted.append(post(client, 1).json()["id"])
        records = ended_once(queue, accepted)
    assert {record.state.value for record in records} == {"succeeded"}


@pytest.mark.slow
def test_a_server_without_room_for_its_log_comes_back_with_all_it_accepted(tmp_path: Path, disk: Path) -> None:
    server = EmbeddedValkey(disk / "valkey")
    server.start()
    values = {"REDIS_URL": server.url, "lease_seconds": LEASE, "data_dir": tmp_path, "engine": "fake"}
    try:
        with ExitStack() as stack:
            queue, client = serving(stack, Settings.model_validate(values))
            accepted = [post(client, number).json()["id"] for number in range(3)]
            with full(disk):
                refused = [answer for answer in (post(client, number) for number in range(3, 9)) if answer.is_error]
                assert refused, "the log found room"
                assert {answer.status_code for answer in refused} == {503}
                assert {answer.json()["code"] for answer in refused} <= {"redis_away", "redis_refuses"}
                wait_until(lambda: not server.alive(), 20, "the end of a server that cannot keep its word")
                with pytest.raises(Unavailable) as failure:
                    server.start()
                assert failure.value.code == "storage_unavailable"
            server.start()
            assert set(accepted) <= set(jobs_of(queue))
            accepted += [post(client, number).json()["id"] for number in range(3, 9)]
            assert sorted(accepted) == sorted(jobs_of(queue))
            records = ended_once(queue, accepted)
    finally:
        server.stop()
    assert {record.state.value for record in records} == {"succeeded"}


def test_the_supervisor_outlives_a_server_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    server = EmbeddedValkey(tmp_path / "valkey")
    stack = Stack(Settings.model_validate({"data_dir": tmp_path}), said.append)
    monkeypatch.setattr(stack, "_server", server)
    monkeypatch.setattr("gateway.stack.supervisor.SERVER_PAUSE_SECONDS", 0)
    stack.__enter__()

    def disk_full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    try:
        with monkeypatch.context() as patch:
            patch.setattr("gateway.stack.valkey.write_durably", disk_full)
            stack.watch()
        assert not server.alive()
        assert "did not start" in said[-1]
        stack.watch()
        assert server.alive()
    finally:
        stack.__exit__()
