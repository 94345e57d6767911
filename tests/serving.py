"""A gateway of a test's own, served in a thread as `casemill gateway` serves it, with no worker behind it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from gateway.app import create_app
from gateway.serving import serving_options
from gateway.stack.valkey import EmbeddedValkey
from services.access import Access
from services.fleet import Announcement, Fleet, WorkerModel
from services.jobs import Claim, Completion, Device, Lane
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.conftest import wait_until
from tests.witness import Witnessed

CPU = (Device.CPU, Device.ANY)


@dataclass(frozen=True)
class Served:
    """The gateway; ``http`` carries a key of the tenant acme. Jobs are claimed and ended by the test."""

    url: str
    http: httpx.Client
    lifecycle: Lifecycle
    settings: Settings
    access: Access

    def submit(self, **changes: Any) -> dict[str, Any]:
        answer = self.http.post("/v1/jobs", json=job_body(**changes))
        assert answer.status_code == 202, answer.text
        return answer.json()

    def claim(self, n: int = 1) -> list[Claim]:
        return self.lifecycle.work([], lane=Lane.GENERATE, devices=CPU, worker="w1", n=n)[1]

    def end(self, claim: Claim, outcome: Any = "succeeded", **changes: Any) -> None:
        done = [Completion(claim, outcome, **changes)]
        self.lifecycle.work(done, lane=Lane.GENERATE, devices=CPU, worker="w1", n=0)

    def client(self, tenant: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.access.create('test', tenant=tenant)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def clear(self) -> None:
        """Cancel what waits."""
        for job in self.http.get("/v1/jobs", params={"state": ["queued", "scheduled"], "limit": 200}).json()["data"]:
            self.lifecycle.cancel("acme", job["id"])


def job_body(**changes: Any) -> dict[str, Any]:
    return {"type": "generate", "input": {"prompt": "hello"}} | changes


def settings_on(server: EmbeddedValkey, folder: Path, **changes: Any) -> Settings:
    """Settings of an own installation on the server."""
    values: dict[str, Any] = {"REDIS_URL": server.url, "prefix": f"test-{os.urandom(4).hex()}:", "data_dir": folder}
    return Settings.model_validate(values | changes)


@contextmanager
def serving(settings: Settings) -> Generator[Served]:
    """Serve until the end of the block."""
    lifecycle = Lifecycle(settings)
    fleet = Fleet(lifecycle.client, lifecycle.keys)
    fleet.announce(
        Announcement(
            id="w1",
            host="here",
            pid=1,
            device="cpu",
            device_name="",
            lanes=("generate", "extract", "analyze"),
            slots=4,
            busy=0,
            cores=(),
            models=(WorkerModel("m", "generate", "0" * 64, 512, True),),
            memory=0,
            engine="fake",
            version="0",
            started=0.0,
        )
    )
    lifecycle.client.expire(lifecycle.keys("worker", id="w1"), 3600)  # as one that goes on announcing itself
    access = Access(lifecycle.client, lifecycle.keys)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    options: dict[str, Any] = serving_options(settings) | {"log_level": "error"}
    witness = Witnessed(create_app(settings))
    server = uvicorn.Server(uvicorn.Config(witness, **options))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        wait_until(lambda: server.started)
        headers = {"Authorization": f"Bearer {access.create('test', tenant='acme')}"}
        with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as http:
            yield Served(url, http, lifecycle, settings, access)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        fleet.leave("w1")
        lifecycle.client.close()
    witness.check()


@contextmanager
def gateway_process(settings: Settings) -> Generator[subprocess.Popen[bytes]]:
    """A gateway as a process of its own, which is killed at the end of the block."""
    names = ("data_dir", "prefix", "port")
    env = os.environ | {f"CASEMILL_{name.upper()}": str(getattr(settings, name)) for name in names}
    env["REDIS_URL"] = settings.redis_url
    command = [sys.executable, "-m", "gateway.cli.main", "gateway"]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()
