"""Things that are there for the examples of the API's description, and new ones for requests that use them up."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.openapi.example_ids import EXAMPLE_IDS
from gateway.openapi.requests import LEASE, PLAYBOOK, REVIEW
from services.models import FAKE
from tests.conftest import wait_until
from tests.described import Description, Operation
from tests.integration.conftest import Running

MATTER = EXAMPLE_IDS["matter"]
# Longer than any context here, so this job fails for good.
FAILING = {"type": "generate", "input": {"prompt": "Sum up: The tenant may sublet.", "max_tokens": 8192}}


@dataclass(frozen=True)
class Answered:
    """An example that was sent, with these ``ids`` in the place of the description's, and what was answered."""

    operation: Operation
    example: str
    ids: dict[str, str]
    answer: httpx.Response


class Prepared:
    """One of everything in a stack with the fake engine; ``ids`` are by the names of path parameters and examples.

    ``model`` and ``embedding_model`` are those that requests ask for.
    """

    def __init__(self, stack: Running, *, model: str = FAKE, embedding_model: str = FAKE) -> None:
        self._stack = stack
        self._numbers = itertools.count(1)
        self._post(
            "/v1/playbooks", content=PLAYBOOK.replace("0.4", "0.3").encode()
        )  # the examples upload another version
        self.ids = {
            "model_id": model,
            "embedding_model_id": embedding_model,
            "playbook": "lease",
            "matter": MATTER,
            "kind": EXAMPLE_IDS["kind"],
        }
        self.ids["document_id"] = self._document(LEASE, "lease.txt")
        self.ids["other_document_id"] = self._document(LEASE.replace("may sublet", "may not sublet"), "lease-2.txt")
        for name, make in self._makers().items():
            self.ids.setdefault(name, make())
        self.ids["job_id"] = self._ended(self._post("/v1/jobs", json=REVIEW | self._document_of_house()))
        run = {"name": "March", "documents": [self.ids["document_id"]], "playbook": "lease", "matter": MATTER}
        self.ids["run_id"] = self._post("/v1/runs", json=run)
        wait_until(lambda: self._get(f"/v1/runs/{self.ids['run_id']}")["state"] == "succeeded", 60)

    def answers(self, description: Description) -> Iterator[Answered]:
        """Every example of the description, sent, with what was answered; of streams without end the first events."""
        for operation in description.operations():
            for example in operation.examples():
                ids = dict(self.ids)
                if operation.method != "GET" and (used := operation.used_up(example)):
                    ids[used] = self.fresh(used)
                request = self._stack.http.build_request(timeout=90, **operation.request(example, ids))
                answer = self._stack.http.send(request, stream=True)
                text = answer.iter_lines() if operation.id == "follow_events" else None
                begun = "".join(f"{line}\n" for line in itertools.islice(text or (), 16))
                content = begun.encode() if text else answer.read()
                answer.close()
                whole = httpx.Response(answer.status_code, headers=answer.headers, content=content)
                yield Answered(operation, example, ids, whole)

    def fresh(self, name: str) -> str:
        """A new one, for a request that changes or removes it."""
        make = self._makers().get(name)
        return make() if make else self.ids[name]

    def _makers(self) -> dict[str, Callable[[], str]]:
        return {
            "document_id": lambda: self._document(f"{LEASE}\nNumber {next(self._numbers)}.\n", "lease.txt"),
            "job_id": lambda: self._post("/v1/jobs", json=self._later()),
            "failed_job_id": lambda: self._ended(self._post("/v1/jobs", json=FAILING)),
            "run_id": lambda: self._post("/v1/runs", json={"open": True, "type": "extract", "matter": MATTER}),
            "schedule_id": self._schedule,
            "playbook": self._playbook,
            "webhook_id": self._webhook,
            "delivery_id": self._delivery,
            "file_id": self._file,
            "batch_id": self._batch,
            "key_id": lambda: self._post("/v1/keys", json={"name": "theirs"}),
            "matter": self._matter,
        }

    def _document_of_house(self) -> dict[str, str]:
        return {"document": self.ids["document_id"]}

    @staticmethod
    def _later() -> dict[str, Any]:
        return {"type": "generate", "input": {"prompt": "x"}, "not_before": "2035-01-31T00:00:00Z", "matter": MATTER}

    def _document(self, text: str, name: str, matter: str = MATTER) -> str:
        return self._post("/v1/documents", params={"name": name, "matter": matter}, content=text.encode())

    def _schedule(self) -> str:
        run = {"matter": MATTER, "playbook": "lease"}
        return self._post("/v1/schedules", json={"name": "Monthly", "cron": "0 22 28 * *", "run": run})

    def _playbook(self) -> str:
        name = f"lease-{next(self._numbers)}"
        self._post("/v1/playbooks", content=PLAYBOOK.replace("name: lease", f"name: {name}").encode())
        return name

    def _webhook(self) -> str:
        url = f"http://127.0.0.1:9/{next(self._numbers)}"
        return self._post("/v1/webhooks", json={"url": url, "events": ["job.cancelled"], "matter": MATTER})

    def _delivery(self) -> str:
        """One that has ended: its endpoint was disabled when there was something to tell."""
        path = f"/v1/webhooks/{self.ids['webhook_id']}"
        self._post(f"{path}/disable")
        job = self._post("/v1/jobs", json=self._later())
        self._stack.http.delete(f"/v1/jobs/{job}")

        def failed() -> str | None:
            told = self._get(f"{path}/deliveries?state=failed")["data"]
            return next((one["id"] for one in told if one["subject"] == job), None)

        delivery = wait_until(failed, 60)
        self._post(f"{path}/enable")
        return delivery

    def _file(self) -> str:
        request = {"method": "POST", "url": "/v1/completions", "body": {"model": self.ids["model_id"], "prompt": "x"}}
        whole = "".join(json.dumps(request | {"custom_id": str(number)}) + "\n" for number in range(300)).encode()
        return self._post("/v1/files", files={"file": ("requests.jsonl", whole)}, data={"purpose": "batch"})

    def _batch(self) -> str:
        body = {"input_file_id": self._file(), "endpoint": "/v1/completions", "completion_window": "24h"}
        return self._post("/v1/batches", json=body)

    def _matter(self) -> str:
        matter = f"M-{next(self._numbers)}"
        self._document(f"{LEASE}\nOf {matter}.\n", "lease.txt", matter)
        return matter

    def _ended(self, job: str) -> str:
        self._stack.finished(job)
        return job

    def _get(self, path: str) -> dict[str, Any]:
        return self._stack.http.get(path).json()

    def _post(self, path: str, **sends: Any) -> str:
        answer = self._stack.http.post(path, **sends)
        assert answer.is_success, answer.text
        return str(answer.json().get("id", ""))
