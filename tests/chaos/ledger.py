"""What clients of a queue were told, and the check of it once all has ended: nothing lost, nothing done twice."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from services.errors import Unavailable
from services.jobs import Priority, Submission, new_id
from services.lifecycle import Lifecycle
from services.runs import Runs, RunSubmission
from tests.chaos.installation import ENDS

PAGE = 500
PATIENCE_SECONDS = 120

T = TypeVar("T")
Events = Sequence[tuple[str, dict[str, Any]]]


@dataclass
class Audit:
    """What the check found; jobs are named ``tenant|id``.

    ``waits`` are (accepted, first claimed) of the critical jobs, in seconds since the epoch of the server's clock;
    ``states`` counts how the jobs ended, a run's documents among them.
    """

    lost: list[str] = field(default_factory=list[str])
    doubled: list[str] = field(default_factory=list[str])
    waits: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    states: Counter[str] = field(default_factory=Counter[str])


class Ledger:
    """Submits as a careful client does, with a key and again until it is answered, and remembers what was accepted."""

    def __init__(self, queue: Lifecycle) -> None:
        self._queue = queue
        self._client: Any = queue.client
        self._runs = Runs(queue)
        self._ids: dict[str, tuple[str, str]] = {}
        self._requests: list[Submission] = []
        self._run_ids: list[tuple[str, str]] = []
        self._twice: list[str] = []

    def __len__(self) -> int:
        """Jobs and runs that were accepted."""
        return len(self._ids)

    def submit(self, submission: Submission) -> tuple[str, str]:
        """Have a job accepted; answers its tenant and id."""
        request = replace(submission, idempotency_key=new_id("key"))
        self._requests.append(request)
        return self._send(request)

    def repeat(self, number: int) -> None:
        """Send an earlier request again, as a client does that did not see the answer."""
        self._send(self._requests[number % len(self._requests)])

    def run(self, name: str, work: Submission) -> None:
        """Have a run over all documents of a matter accepted."""
        request = replace(work, idempotency_key=new_id("key"))
        run, _ = patiently(lambda: self._runs.submit(RunSubmission(name, request, whole_matter=True)))
        self._run_ids.append(self._note(request, run.id))

    def cancel(self, tenant: str, job: str) -> None:
        """Cancel a job."""
        patiently(lambda: self._queue.cancel(tenant, job))

    def settled(self) -> bool:
        """Whether nothing waits, runs or is to run later."""
        keys = self._queue.keys
        names = [keys(name) for name in ("waiting", "leases", "scheduled", "deliveries_scheduled", "open_runs")]
        return patiently(lambda: self._client.exists(*names)) == 0

    def audit(self) -> Audit:
        """Compare what was accepted with the records and streams of the server."""
        found = Audit(doubled=list(self._twice))
        jobs = [job for job in self._ids.values() if job not in self._run_ids]
        jobs += [child for run in self._run_ids for child in self._documents(*run, found)]
        for job, record, events in self._stories(jobs):
            self._judge(job, record, events, found)
            if record.get("priority") == Priority.CRITICAL and (claimed := first_claim(events)):
                found.waits.append((float(events[0][1]["t"]), claimed))
        found.doubled += ["|".join(job) for job in self._indexed() - set(self._ids.values())]
        return found

    def _send(self, request: Submission) -> tuple[str, str]:
        job, _ = patiently(lambda: self._queue.submit(request))
        return self._note(request, job.id)

    def _note(self, request: Submission, job: str) -> tuple[str, str]:
        key = str(request.idempotency_key)
        if self._ids.setdefault(key, (request.tenant, job)) != (request.tenant, job):
            self._twice.append(f"{request.tenant}|{job}")
        return request.tenant, job

    def _documents(self, tenant: str, run: str, found: Audit) -> list[tuple[str, str]]:
        """The jobs of a run's documents; the run itself is judged by its own stream."""
        ((_, record, events),) = self._stories([(tenant, run)])
        told = Counter(data["document"] for event, data in events if event == "document")
        self._judge((tenant, run), record, events, found, counts=told)
        rows = list(self._runs.documents(tenant, run)) if record else []
        silent = [f"{tenant}|{run}|{row.document}" for row in rows if row.document not in told or not row.job]
        found.lost += silent
        return [(tenant, row.job) for row in rows if row.job]

    def _judge(
        self,
        job: tuple[str, str],
        record: dict[str, str],
        events: Events,
        found: Audit,
        *,
        counts: Counter[str] | None = None,
    ) -> None:
        """Note a job as lost or doubled; a result must come from the attempt that was claimed last."""
        ends = [event for event, _ in events if event in ENDS]
        steps = Counter(data["step"] for event, data in events if event == "step" and data["state"] in ENDS)
        attempts = [data["attempt"] for _, data in events if data.get("state") == "running"]
        state, result = record.get("state", "missing"), record.get("result", "")
        expected = f"res_{attempts[-1]}" if state == "succeeded" and attempts else ""
        if not ends or ends[-1] != state or events[-1][0] != state or (expected and not result):
            found.lost.append("|".join(job))
        elif len(ends) > 1 or max((steps + (counts or Counter())).values(), default=0) > 1 or result != expected:
            found.doubled.append("|".join(job))
        found.states[state] += counts is None

    def _stories(
        self, jobs: Sequence[tuple[str, str]]
    ) -> Iterator[tuple[tuple[str, str], dict[str, str], list[tuple[str, dict[str, Any]]]]]:
        """Record and events of each job."""
        for start in range(0, len(jobs), PAGE):
            page = jobs[start : start + PAGE]
            pipeline = self._client.pipeline(transaction=False)
            for tenant, job in page:
                pipeline.hgetall(self._queue.keys("job", tenant=tenant, id=job))
                pipeline.xrange(self._queue.keys("events", tenant=tenant, id=job))
            answers = pipeline.execute()
            for job, record, rows in zip(page, answers[::2], answers[1::2], strict=True):
                yield job, record, [(row["event"], json.loads(row["data"])) for _, row in rows]

    def _indexed(self) -> set[tuple[str, str]]:
        """All jobs and runs that the server knows, those of no accepted request among them."""
        tenants = {tenant for tenant, _ in self._ids.values()}
        names = [(tenant, self._queue.keys(name, tenant=tenant)) for tenant in tenants for name in ("jobs", "runs")]
        return {(tenant, job) for tenant, name in names for job in self._client.zrange(name, 0, -1)}


def first_claim(events: Events) -> float | None:
    """When a job, or a step of it, was claimed for the first time; ``None`` if it never was."""
    return next((float(data["t"]) for _, data in events if data.get("state") == "running"), None)


def patiently(action: Callable[[], T]) -> T:
    """The answer of a call that is repeated while the server is away; two minutes at most."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return action()
        except Unavailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
