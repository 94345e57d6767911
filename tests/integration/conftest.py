"""Running stacks for tests: the processes that `casemill up` starts, with the fake engine or with real weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.client_file import ClientFile
from gateway.stack.supervisor import Stack
from services.settings import Settings
from tests.conftest import wait_until
from tests.witness import Witness


@dataclass(frozen=True)
class Running:
    """A stack that serves; ``http`` carries its admin key."""

    url: str
    key: str
    http: httpx.Client
    settings: Settings
    stack: Stack
    login: str

    def upload(self, data: bytes, name: str = "contract.txt") -> httpx.Response:
        return self.http.post("/v1/documents", params={"name": name}, content=data, timeout=90)

    def submit(self, **body: Any) -> dict[str, Any]:
        answer = self.http.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def job(self, job: str) -> dict[str, Any]:
        return self.http.get(f"/v1/jobs/{job}").json()

    def finished(self, job: str, seconds: float = 120) -> dict[str, Any]:
        ends = ("succeeded", "failed", "cancelled", "expired")
        return wait_until(lambda: (view := self.job(job))["state"] in ends and view, seconds, f"the end of {job}")

    def events(self, job: str, after: str | None = None) -> list[tuple[str, str, dict[str, Any]]]:
        """All events as (id, name, data) until the final one."""
        return list(self.follow(job, after))

    def follow(self, job: str, after: str | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """The same, each as soon as it comes."""
        headers = {"Last-Event-ID": after} if after else {}
        with self.http.stream("GET", f"/v1/jobs/{job}/events", headers=headers, timeout=60) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            event_id = event = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                event_id = value if name == "id" else event_id
                event = value if name == "event" else event
                if name == "data":
                    yield event_id, event, json.loads(value)


@contextmanager
def running(data_dir: Path, say: Callable[[str], None] = print, **changes: Any) -> Generator[Running]:
    """A stack of its own on free ports."""
    values: dict[str, Any] = {"data_dir": data_dir, "port": 0, "flower_port": 0, "engine": "fake"} | changes
    settings = Settings.model_validate(values)
    with Stack(settings, say) as stack:
        started = stack.start()
        known = ClientFile(data_dir).read()
        assert known
        headers = {"Authorization": f"Bearer {known.key}"}
        with httpx.Client(base_url=started.url, headers=headers, timeout=60, trust_env=False) as http:
            yield Running(started.url, known.key, http, settings, stack, started.login)


@pytest.fixture(scope="session")
def fake_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A stack whose engine is fake."""
    with running(tmp_path_factory.mktemp("fake-stack")) as stack:
        witness = Witness(stack.http.get("/openapi.json").json())
        stack.http.event_hooks["response"].append(witness.hook)
        yield stack
        witness.check()
