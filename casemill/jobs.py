"""Jobs: submit one or many, find them, wait for a result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack
from uuid import uuid4

from casemill.calls import answered, loaded, pages, view_of, viewed
from casemill.models import Job
from casemill.operations import D, iteration, operation
from casemill.problems import Problem, problem_in
from casemill.requests import JobOptions, JobRequest
from casemill.steps import Emitting, Flow, encoded, path_of, request
from casemill.work import WorkResource

PATH = path_of("jobs")
# What the gateway takes in one request: lines, and bytes with some room.
MOST_LINES, MOST_BYTES = 1000, 7 * 2**20


class Jobs(WorkResource[D, Job]):
    """``client.jobs``."""

    kind, view = "jobs", Job

    @operation
    def submit(
        self,
        type: str,  # noqa: A002 (its name)
        *,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Flow[Job]:
        """Submit a job; what comes back is on the gateway's disk and will be done.

        ``type`` is ``review``, ``analyze`` or ``extract`` of a document, ``generate`` or ``embed`` of an input; the
        ``options`` are those of :class:`casemill.JobOptions`.

        A job has an idempotency key, so that trying again after a lost answer never makes a second one. Without
        ``idempotency_key`` each call has a key of its own. Give one that you keep, such as your document's id with its
        version, and the same call is the same job for a day, even after your own program died.

        Raises ``Throttled`` where more waits than may, ``Invalid`` for what cannot be done, and for a key that stood
        for another request (``idempotency_mismatch``).
        """
        asked = request("POST", PATH, body={"type": type, **options}, idempotency_key=idempotency_key or new_key())
        return (yield from view_of(Job, asked, self.retry.begin()))

    @operation
    def submit_many(
        self, jobs: Iterable[JobRequest], *, idempotency_key: str | None = None
    ) -> Flow[Sequence[Job | Problem]]:
        """Submit many jobs, up to a thousand in a request; answers in their order the job, or why it was refused.

        A job that is refused does not stop the others, and its problem is not raised: where a whole request fails, its
        problem stands in the place of each of its jobs. Each job is safe to try again as with :meth:`submit`: by its
        own ``idempotency_key``, or by one for all with its place among them.
        """
        key, outcomes = idempotency_key or new_key(), list[Job | Problem]()
        for number, body in enumerate(_bodies(jobs)):
            asked = request(
                "POST", PATH, content=body, content_type="application/x-ndjson", idempotency_key=f"{key}.{number}"
            )
            try:
                answer = yield from answered(asked, self.retry.begin())
                outcomes += [_outcome(loaded(line)) for line in answer.body.split(b"\n") if line]
            except Problem as problem:
                outcomes += [problem] * (body.count(b"\n") + 1)
        return outcomes

    @operation
    def result(self, job: str | Job, /, *, timeout: float | None = None) -> Flow[dict[str, Any]]:
        """Wait for a job's end and answer its result; raises ``JobFailed`` where it has none, else as :meth:`wait`."""
        ended = yield from WorkResource[D, Job].wait.flow(self, job, timeout=timeout)
        ended.raise_for_state()
        return ended.result or {}

    @iteration
    def list(
        self,
        *,
        state: str | Sequence[str] | None = None,
        type: str | Sequence[str] | None = None,  # noqa: A002 (its name)
        matter: str | None = None,
        external_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        run: str | None = None,
    ) -> Emitting[Job, None]:
        """The jobs that fit all that is asked for, newest first, without their results.

        ``run`` asks for the jobs of a run, which are listed by it alone.
        """
        params = {"state": state, "type": type, "matter": matter, "external_id": external_id, "run": run}
        params |= {f"metadata.{name}": value for name, value in (metadata or {}).items()}
        yield from pages(PATH, params, Job, self.retry)


def new_key() -> str:
    """An idempotency key that nobody else has."""
    return uuid4().hex


def _bodies(jobs: Iterable[JobRequest]) -> Iterator[bytes]:
    """The jobs as lines, as many together as one request takes."""
    lines, size = list[bytes](), 0
    for job in jobs:
        line = encoded(job)
        if lines and (len(lines) == MOST_LINES or size + len(line) > MOST_BYTES):
            yield b"\n".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield b"\n".join(lines)


def _outcome(told: dict[str, Any]) -> Job | Problem:
    if "problem" in told:
        return problem_in(told["problem"], told["status"])
    return viewed(Job, told.get("job"))
