"""The one place that knows how a job lives: each method is one transition, one Lua script on the Redis server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import repeat
from typing import Any, NamedTuple

from services.acceptance import acceptance, key_reused, record_fields, refuse_barred
from services.backlog_limits import backlog_limits, seconds_to_room
from services.data_keys import Erased
from services.errors import BacklogFull, Conflict, InvalidRequest, Unavailable, or_error, unknown
from services.fleet import ANNOUNCEMENT_SECONDS, Fleet
from services.job_index import label_digests, labels
from services.jobs import (
    ANYTHING,
    Choice,
    Claim,
    Completion,
    Device,
    Job,
    Lane,
    Priority,
    State,
    Submission,
    check_name,
    is_delivery,
    new_id,
)
from services.keys import Keys
from services.redis_client import Redis, connect, redis_errors, server_time
from services.scripts import Scripts, pairs
from services.sealed_records import SealedRecords, owners_of
from services.seals import Seals
from services.settings import Settings
from services.tenant_secrets import TenantSecrets
from services.tickets import ticket_envelope
from services.timings import BOUNDS, Histogram, histograms

# Waking more slots than any machine has is work for nothing; the caretaker fills up what was used.
TICKET_LIMIT = 64
# How long a webhook's next attempt waits after each that failed, before some jitter: Standard Webhooks' own schedule.
DELIVERY_RETRY_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
# Submissions sent together: one sync to disk for all of them, and no urgent script waits long behind them.
SUBMIT_BATCH = 50


class _Backlog(NamedTuple):
    """A backlog that holds jobs."""

    lane: Lane
    device: Device
    priority: Priority
    queue: str
    model: str

    @classmethod
    def named(cls, lane: Lane, name: str) -> _Backlog:
        """By its name in the key `backlogs`."""
        device, priority, queue, model = name.split("|", 3)
        return cls(lane, Device(device), Priority(priority), queue, model)

    def key(self, keys: Keys, name: str) -> str:
        """The key ``name``, which is `backlog` or `ages`."""
        return keys(name, **self._asdict())


class Lifecycle:
    """Transitions of jobs. Safe for threads; every method raises ``Unavailable`` when Redis is away."""

    def __init__(self, settings: Settings, client: Redis | None = None) -> None:
        self.settings = settings
        self.client = client or connect(settings)
        self.keys = Keys(settings.prefix)
        self._fleet = Fleet(self.client, self.keys)
        self.records = SealedRecords(Seals.of(settings), TenantSecrets(settings.data_dir))
        self.scripts = Scripts(
            self.client,
            {
                "prefix": settings.prefix,
                "ticket": ticket_envelope(),
                "ticket_limit": TICKET_LIMIT,
                "placement": settings.placement,
                "announcement": ANNOUNCEMENT_SECONDS,
                "result_ttl": settings.result_ttl_seconds,
                "max_attempts": settings.max_attempts,
                "delivery_attempts": len(DELIVERY_RETRY_SECONDS) + 1,
                "bounds": BOUNDS,
            },
        )

    def submit(self, submission: Submission) -> tuple[Job, bool]:
        """Accept a job; answers its record and whether it is new (``False``: the idempotency key was seen before).

        When this returns, the job is on the server; with the embedded one also on its disk. Raises ``BacklogFull``,
        ``Conflict`` (the key was used for another payload) or ``InvalidRequest`` (its time is over); then nothing was
        queued.
        """
        answer = self.submit_each([submission])[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit_each(self, submissions: Sequence[Submission]) -> list[tuple[Job, bool] | Exception]:
        """As :meth:`submit` for each of them in order, sent together; an error stands in the place of what was refused.

        Where the server goes away, those on their way are ``Unavailable``, although they may have been accepted.
        """
        answers: list[tuple[Job, bool] | Exception] = []
        slots = cache(self._slots)
        for start in range(0, len(submissions), SUBMIT_BATCH):
            batch = [or_error(self._acceptance, one) for one in submissions[start : start + SUBMIT_BATCH]]
            sent = [one for one in batch if not isinstance(one, Exception)]
            try:
                replies = iter(self.scripts.run_each("submit", [argument for _, argument in sent]))
            except Unavailable as error:
                replies = repeat(error)
            answers += [
                one if isinstance(one, Exception) else or_error(self._accepted, one[0], next(replies), slots)
                for one in batch
            ]
        return answers

    def accepted(self, tenant: str, idempotency_key: str, request: str) -> str | None:
        """The id of the job, run or batch that was accepted under this key for the same request, by its hash.

        ``None`` if none was, or if it is not kept any more.
        """
        name = self.keys("idempotency", tenant=tenant, key=self.records.digest(tenant, "idempotency", idempotency_key))
        with redis_errors():
            known, _, digest = (self.client.get(name) or "").partition("|")
            kept = known and self.client.exists(self.keys("job", tenant=tenant, id=known))
        return known if kept and digest == self.records.digest(tenant, "request", request) else None

    def _acceptance(self, submission: Submission) -> tuple[dict[str, str], dict[str, Any]]:
        """The fields of the new record as they are, and what the script gets, in which they are sealed."""
        check_name(submission.tenant, "tenant")
        fields = record_fields(submission) | {"tenant": submission.tenant, "id": new_id("job")}
        sealed = self.records.seal_job(submission.tenant, fields)
        argument: dict[str, Any] = {"fields": sealed} | backlog_limits(self.settings)
        if found_by := label_digests(self.records, submission.tenant, labels(submission)):
            argument["labels"] = found_by
        return fields, argument | acceptance(self.records, submission, fields["input"])

    def _accepted(self, fields: dict[str, str], reply: Any, slots: Callable[[str], int]) -> tuple[Job, bool]:
        if isinstance(reply, Exception):
            raise reply
        verdict, value, *load = reply
        if verdict == "full":
            over, limit, took = load
            seconds = seconds_to_room(int(over), int(limit), float(took) if took else None, slots(fields["lane"]))
            raise BacklogFull(f"{value} ({fields['lane']}); try again later", retry_after=seconds)
        if verdict == "conflict":
            raise key_reused()
        if verdict == "past":
            raise InvalidRequest("`expires_at` is over already; nothing was queued", code="time_past")
        refuse_barred(verdict, value)
        accepted = verdict == "accepted"
        # What was accepted is at hand as it was before it was sealed; the answer has the rest.
        return Job.from_fields((fields if accepted else {}) | self.records.open_job(pairs(value))), accepted

    def _slots(self, lane: str) -> int:
        return sum(worker.slots for worker in self._fleet.workers() if lane in worker.lanes)

    def work(
        self,
        done: Sequence[Completion],
        *,
        lane: Lane,
        devices: Sequence[Device],
        worker: str,
        n: int,
        choice: Choice = ANYTHING,
        stay: bool = False,
        goes_on: bool = False,
    ) -> tuple[list[State | None], list[Claim]]:
        """End what a slot holds and claim up to ``n`` jobs; answers each ended job's state now, and the claims.

        An end with ``None`` does not count: it came from an attempt that had lost its lease; its result is discarded.
        ``choice`` limits the claim. A slot that stops (``n`` is 0) while work remains wakes the next by placement, with
        ``stay`` one of its own worker; one that ``goes_on`` with what it holds wakes none.
        """
        argument: dict[str, Any] = {
            "done": [self.records.seal_completion(completion) for completion in done],
            "n": n,
            "lane": lane,
            "classes": list(devices),
            "ranks": choice.ranks,
            "suspects": choice.suspects,
            "worker": worker,
            "lease": self.settings.lease_seconds,
        }
        if choice.models is not None:
            argument["models"] = dict(choice.models)
        if stay:
            argument["stay"] = True
        if goes_on:
            argument["goes_on"] = True
        states, rows = self.scripts.run("work", argument)
        return [State(value) if value else None for value in states], [
            Claim.from_fields(self.records.open_job(pairs(fields)), pairs(outputs)) for fields, outputs in rows
        ]

    def renew(self, moved: Sequence[str], still: Sequence[str]) -> dict[str, str]:
        """Extend the leases of ``moved`` members; answers member → ``lost`` or ``cancel``, for both lists."""
        flat = self.scripts.run(
            "renew",
            {
                "lease": self.settings.lease_seconds,
                "renew": list(moved),
                "hold": list(still),
            },
        )
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def holds(self, claim: Claim) -> bool:
        """Whether an attempt still has its claim, so that what it stored counts."""
        return self.renew([], [claim.member]).get(claim.member) != "lost"

    def append(self, claim: Claim, event: str, data: dict[str, Any]) -> bool:
        """Append an event to the job's stream and its parent's; ``False`` when the attempt lost its claim."""
        try:
            sealed = self.records.seals.seal_text(
                claim.tenant, "event", json.dumps(data), owners_of(claim.tenant, claim.document, claim.matter)
            )
        except Erased:
            return False
        argument = {
            "tenant": claim.tenant,
            "id": claim.id,
            "attempt": str(claim.attempt),
            "event": event,
            "data": sealed,
        }
        return bool(self.scripts.run("append", argument))

    def cancel(self, tenant: str, job: str) -> str:
        """Cancel a job; answers ``cancelled``, ``cancelling`` (at its next step) or the final state it already has."""
        verdict = str(self.scripts.run("cancel", {"tenant": tenant, "id": job}))
        if verdict == "missing":
            raise unknown("job", job)
        return verdict

    def replay(self, tenant: str, job: str, *, only_ask: bool = False) -> None:
        """Run a job again that failed, was cancelled or expired; a parent goes on with the step that ended it.

        Raises ``NotFound``, or ``Conflict`` when the job waits, runs or has succeeded; ``only_ask`` does nothing else.
        """
        argument: dict[str, Any] = {"tenant": tenant, "id": job}
        verdict = str(self.scripts.run("replay", argument | ({"asked": True} if only_ask else {})))
        if verdict == "missing":
            raise unknown("job", job)
        if verdict == "step":
            raise Conflict("a step cannot be replayed alone; replay its parent", code="job_is_step")
        if verdict != "replayed":
            raise Conflict(f"the job is {verdict}; only failed, cancelled and expired jobs run again", code="job_state")

    def care(self, dead_workers: Sequence[str] = ()) -> tuple[int, int, int]:
        """One round of the caretaker; answers how many jobs it requeued and promoted and how many tickets it wrote."""
        argument = {
            "batch": 500,
            "lanes": list(Lane),
            "devices": list(Device),
            "workers": list(dead_workers),
        }
        requeued, promoted, tickets = self.scripts.run("care", argument)
        return int(requeued), int(promoted), int(tickets)

    def get(self, tenant: str, job: str) -> Job:
        """The record of a job; raises ``NotFound``."""
        with redis_errors():
            fields = self.client.hgetall(self.keys("job", tenant=tenant, id=job))
        # Runs are read by services.runs, batches by services.batches, deliveries by services.deliveries.
        if not fields or not {"template", "batch"}.isdisjoint(fields) or fields.get("task") == "deliver":
            raise unknown("job", job)
        return self._job(fields)

    def _job(self, fields: dict[str, str]) -> Job:
        return Job.from_fields(self.records.open_job(fields))

    def service_seconds(self) -> dict[str, float]:
        """Measured seconds of a job by lane, smoothed."""
        with redis_errors():
            return {lane: float(value) for lane, value in self.client.hgetall(self.keys("service")).items()}

    def position(self, job: Job) -> int | None:
        """How many jobs a queued job has before it for its device, by priority and rank; ``None`` if not queued."""
        if job.state is not State.QUEUED:
            return None
        with redis_errors():
            pipeline = self.client.pipeline(transaction=False)
            pipeline.smembers(self.keys("backlogs", lane=job.lane))
            pipeline.hmget(self.keys("job", tenant=job.tenant, id=job.id), ["state", "score"])
            names, (state, score) = pipeline.execute()
            if state != State.QUEUED:
                return None
            for backlog in (_Backlog.named(job.lane, name) for name in names):
                if backlog.device is job.device and backlog.priority is job.priority:
                    pipeline.zcount(backlog.key(self.keys, "backlog"), "-inf", f"({score}")
                elif backlog.device is job.device and backlog.priority.rank < job.priority.rank:
                    pipeline.zcard(backlog.key(self.keys, "backlog"))
            return sum(pipeline.execute())

    def depths(self) -> dict[tuple[Lane, Device, Priority], tuple[int, float]]:
        """Jobs waiting and seconds that the oldest has waited, by lane, device and priority; only where any wait."""
        with redis_errors():
            backlogs = self._backlogs()
            pipeline = self.client.pipeline(transaction=False)
            for backlog in backlogs:
                pipeline.zcard(backlog.key(self.keys, "ages"))
                pipeline.zrange(backlog.key(self.keys, "ages"), 0, 0, withscores=True)
            answers = pipeline.execute()
        rows = [row for row in zip(backlogs, answers[::2], answers[1::2], strict=True) if row[1]]
        now = server_time(self.client) if rows else 0.0
        found: dict[tuple[Lane, Device, Priority], tuple[int, float]] = {}
        for backlog, count, head in rows:
            cell = backlog.lane, backlog.device, backlog.priority
            before, oldest = found.get(cell, (0, 0.0))
            found[cell] = (before + count, max(oldest, now - head[0][1]))
        return found

    def model_depths(self) -> dict[tuple[Lane, Device, str], int]:
        """Jobs waiting that need a model, by lane, device and model; only where any wait."""
        with redis_errors():
            backlogs = [backlog for backlog in self._backlogs() if backlog.model]
            pipeline = self.client.pipeline(transaction=False)
            for backlog in backlogs:
                pipeline.zcard(backlog.key(self.keys, "backlog"))
            counts = pipeline.execute()
        found = Counter[tuple[Lane, Device, str]]()
        for backlog, count in zip(backlogs, counts, strict=True):
            found[backlog.lane, backlog.device, backlog.model] += count
        return dict(+found)

    def _backlogs(self) -> list[_Backlog]:
        pipeline = self.client.pipeline(transaction=False)
        for lane in Lane:
            pipeline.smembers(self.keys("backlogs", lane=lane))
        return [
            _Backlog.named(lane, name) for lane, names in zip(Lane, pipeline.execute(), strict=True) for name in names
        ]

    def standing(self) -> dict[str, int]:
        """How many jobs are dead letters, scheduled, and held by a lease, and how many deliveries are scheduled."""
        with redis_errors():
            tenants = self.client.smembers(self.keys("tenants"))
            pipeline = self.client.pipeline(transaction=False)
            pipeline.zcard(self.keys("scheduled"))
            pipeline.zcard(self.keys("deliveries_scheduled"))
            pipeline.zrange(self.keys("leases"), 0, -1)
            for tenant in tenants:
                pipeline.zcard(self.keys("dead", tenant=tenant))
            scheduled, deliveries, leases, *dead = pipeline.execute()
        return {
            "dead_letters": sum(dead),
            "scheduled": scheduled,
            "deliveries_scheduled": deliveries,
            "leases": sum(not is_delivery(member.split("|")[1]) for member in leases),
        }

    def tickets(self, queues: Sequence[str]) -> dict[str, int]:
        """Tickets waiting, by the queues asked for."""
        with redis_errors():
            pipeline = self.client.pipeline(transaction=False)
            for queue in queues:
                pipeline.llen(self.keys("tickets", queue=queue))
            return dict(zip(queues, pipeline.execute(), strict=True))

    def timings(self) -> dict[tuple[str, Lane, Priority], Histogram]:
        """How long jobs waited and ran, by ``wait`` or ``run``, lane and priority."""
        with redis_errors():
            return histograms(self.client.hgetall(self.keys("timings")))

    def counters(self) -> dict[str, int]:
        """Totals since the server's data began, by name."""
        with redis_errors():
            return {name: int(value) for name, value in self.client.hgetall(self.keys("counters")).items()}
