"""Schedules of runs: kept in Redis, fired by the caretaker, exactly one run for each due time whatever dies."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from services.errors import CasemillError, Conflict, NotFound, Unavailable, unknown
from services.jobs import Device, JobType, Lane, Priority, Step, Submission, new_id
from services.lifecycle import Lifecycle
from services.paging import Page, Place, page_of
from services.recurrence import Missed, Recurrence, decide
from services.redis_client import redis_errors, server_time
from services.runs import Runs, RunSubmission
from services.sealed_records import owners_of

log = logging.getLogger(__name__)

FIRE_BATCH = 100


@dataclass(frozen=True, slots=True)
class Schedule:
    """A run over a matter that recurs. ``next_due`` is epoch seconds, ``None`` when paused or when the rule has ended.

    ``work`` is the job of each document as it was planned when the schedule was made.
    """

    tenant: str
    id: str
    name: str
    recurrence: Recurrence
    missed: Missed
    work: Submission
    created: float
    paused: bool
    next_due: int | None
    last_due: int | None
    last_run: str | None

    def next_times(self, count: int) -> list[int]:
        """The next due times, in epoch seconds."""
        if self.next_due is None:
            return []
        return [self.next_due, *islice(self.recurrence.after(self.next_due), count - 1)]


class Schedules:
    """Keeps schedules and fires them. Safe for threads; every method raises ``Unavailable`` when Redis is away."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._client = lifecycle.client
        self._keys = lifecycle.keys
        self._scripts = lifecycle.scripts
        self._records = lifecycle.records
        self._runs = Runs(lifecycle)

    def now(self) -> float:
        """The server's time, which all due times are compared with."""
        return server_time(self._client)

    def add(self, name: str, recurrence: Recurrence, missed: Missed, work: Submission) -> Schedule:
        """Keep a schedule whose first run is at the first due time from now on."""
        tenant, schedule = work.tenant, new_id("sch")
        first = next(recurrence.after(self.now()), None)
        fields = {
            "name": self._sealed(work, "name", name),
            "recurrence": json.dumps(asdict(recurrence)),
            "missed": missed.value,
            "work": self._sealed(work, "work", json.dumps(_work_fields(work))),
            "created": str(self.now()),
            "next": "" if first is None else str(first),
        }
        with redis_errors():  # together, so that a crash leaves no schedule that is never due
            pipeline = self._client.pipeline()
            pipeline.hset(self._keys("schedule", tenant=tenant, id=schedule), mapping=fields)
            pipeline.sadd(self._keys("tenant_schedules", tenant=tenant), schedule)
            if first is not None:
                pipeline.zadd(self._keys("schedules"), {f"{tenant}|{schedule}": float(first)})
            pipeline.execute()
        return self.get(tenant, schedule)

    def get(self, tenant: str, schedule: str) -> Schedule:
        """One schedule; raises ``NotFound``."""
        with redis_errors():
            fields = self._client.hgetall(self._keys("schedule", tenant=tenant, id=schedule))
        if not fields:
            raise unknown("schedule", schedule)
        seals = self._records.seals
        opened = {kind: seals.open_text(tenant, kind, fields[kind]) for kind in ("name", "work")}
        return _schedule(tenant, schedule, fields | opened)

    def list(
        self, tenant: str, *, matters: Collection[str] | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[Schedule]:
        """The schedules of a tenant, or those of these matters among them, oldest first, page by page.

        Raises ``InvalidRequest`` for a cursor that is none.
        """
        seen = [known for known in self.every(tenant) if matters is None or known.work.matter in matters]
        return page_of("schedules", seen, lambda schedule: Place(0, schedule.id), cursor=cursor, limit=limit)

    def every(self, tenant: str) -> Iterator[Schedule]:
        """All schedules of a tenant, oldest first."""
        with redis_errors():
            names = sorted(self._client.smembers(self._keys("tenant_schedules", tenant=tenant)))
        for schedule in names:
            with suppress(NotFound):  # removed meanwhile
                yield self.get(tenant, schedule)

    def remove(self, tenant: str, schedule: str) -> None:
        """Forget a schedule; its runs go on. Raises ``NotFound``."""
        self.get(tenant, schedule)
        with redis_errors():
            pipeline = self._client.pipeline()
            pipeline.zrem(self._keys("schedules"), f"{tenant}|{schedule}")
            pipeline.srem(self._keys("tenant_schedules", tenant=tenant), schedule)
            pipeline.delete(self._keys("schedule", tenant=tenant, id=schedule))
            pipeline.execute()

    def pause(self, tenant: str, schedule: str) -> Schedule:
        """Let no due time fire until :meth:`resume`. Raises ``NotFound``."""
        self._steer(tenant, schedule, "1", None)
        return self.get(tenant, schedule)

    def resume(self, tenant: str, schedule: str) -> Schedule:
        """Go on with the first due time from now on; those of the pause are not missed ones. Raises ``NotFound``."""
        known = self.get(tenant, schedule)
        self._steer(tenant, schedule, "", next(known.recurrence.after(self.now()), None))
        return self.get(tenant, schedule)

    def _steer(self, tenant: str, schedule: str, paused: str, next_due: int | None) -> None:
        due = "" if next_due is None else str(next_due)
        self._scripts.run("schedule_steer", {"tenant": tenant, "id": schedule, "paused": paused, "next": due})

    def fire(self) -> int:
        """Start the runs that are due, the caretaker's part; answers how many."""
        now = self.now()
        with redis_errors():
            due = self._client.zrangebyscore(self._keys("schedules"), "-inf", now, start=0, num=FIRE_BATCH)
        fired = 0
        for member in due:
            tenant, _, schedule = member.partition("|")
            try:
                fired += self._fire(self.get(tenant, schedule), now)
            except Unavailable as error:
                if error.code != "erasing":  # that schedule goes with its matter; others have their time
                    raise
            except (NotFound, Conflict):  # removed, or dealt with by another caretaker
                continue
            except CasemillError as error:
                log.error("schedule %s: %s", schedule, error)
            except Exception:  # a record that cannot be read keeps no other schedule from its time
                log.exception("schedule %s", schedule)
        return fired

    def _fire(self, schedule: Schedule, now: float) -> int:
        if schedule.next_due is None:
            return 0
        decision = decide(schedule.recurrence, schedule.next_due, now, schedule.missed)
        due = str(schedule.next_due)
        next_due = "" if decision.next_due is None else str(decision.next_due)
        if decision.run_for is None:
            argument = {"tenant": schedule.tenant, "id": schedule.id, "due": due, "next": next_due}
            self._scripts.run("schedule_pass", argument)
            log.warning("schedule %s: %s was missed and is passed over", schedule.id, due)
            return 0
        self._runs.submit(
            RunSubmission(
                schedule.name, schedule.work, whole_matter=True, schedule=schedule.id, due=due, next_due=next_due
            )
        )
        return 1

    def _sealed(self, work: Submission, kind: str, text: str) -> str:
        return self._records.seals.seal_text(work.tenant, kind, text, owners_of(work.tenant, None, work.matter))


def _work_fields(work: Submission) -> dict[str, Any]:
    kept = ("tenant", "type", "input", "priority", "device", "model", "matter", "metadata", "cost", "callback")
    fields: dict[str, Any] = {name: getattr(work, name) for name in kept}
    return fields | {"plan": [asdict(step) for step in work.plan]}


def _work(fields: dict[str, Any]) -> Submission:
    steps = tuple(
        Step(**(step | {"lane": Lane(step["lane"]), "device": Device(step["device"])})) for step in fields["plan"]
    )
    typed: dict[str, Any] = {
        "type": JobType(fields["type"]),
        "priority": Priority(fields["priority"]),
        "device": Device(fields["device"]),
        "plan": steps,
    }
    return Submission(**(fields | typed))


def _schedule(tenant: str, schedule: str, fields: dict[str, str]) -> Schedule:
    return Schedule(
        tenant=tenant,
        id=schedule,
        name=fields["name"],
        recurrence=Recurrence(**json.loads(fields["recurrence"])),
        missed=Missed(fields["missed"]),
        work=_work(json.loads(fields["work"])),
        created=float(fields["created"]),
        paused=bool(fields.get("paused")),
        next_due=int(fields["next"]) if fields.get("next") else None,
        last_due=int(fields["last_due"]) if fields.get("last_due") else None,
        last_run=fields.get("last_run"),
    )
