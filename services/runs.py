"""Bulk runs: a parent over thousands of documents, whose every transition is a Lua script as for single jobs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.acceptance import acceptance, key_reused, record_fields, refuse_barred
from services.errors import Conflict, InvalidRequest, NotFound, unknown
from services.jobs import Priority, State, Submission, check_name, new_id
from services.lifecycle import Lifecycle
from services.paging import Page, Place, page_of_newest, read_cursor, write_cursor
from services.principal import UNLIMITED, Limits
from services.redis_client import redis_errors
from services.run_limits import refuse_full, run_limits, token_limits
from services.scripts import pairs
from services.sealed_records import owners_of
from services.tokens import tokens_of

MAX_DOCUMENTS = 50_000
# Ids that one script adds; thousands more would keep an urgent job's script waiting.
ADD_BATCH = 1000
PAGE = 200


@dataclass(frozen=True, slots=True)
class RunSubmission:
    """A run to be accepted.

    ``work`` is the job of each document, its input without the document. ``whole_matter``: the documents are those
    that the matter has when the run begins; otherwise they are added until the run is sealed, so many ``documents`` at
    once after it was accepted. The key ``owner`` has these ``limits``. ``schedule`` and ``due`` name the schedule's
    time that this run is for, ``next_due`` the time after it; such a run is accepted whatever the limits are.
    """

    name: str
    work: Submission
    whole_matter: bool = False
    documents: int = 0
    owner: str = ""
    limits: Limits = UNLIMITED
    schedule: str | None = None
    due: str = ""
    next_due: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """The record of a run; times are seconds since the epoch, 0.0 if not reached.

    ``active`` documents are under way, ``pace`` is the smoothed number of seconds between the ends of two documents,
    ``reused`` counts documents of which nothing had to be computed.
    """

    tenant: str
    id: str
    name: str
    type: str
    state: State
    priority: Priority
    model: str | None
    matter: str | None
    metadata: dict[str, str]
    created: float
    started: float
    finished: float
    total: int
    active: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    reused: int
    pace: float | None
    paused: bool
    sealed: bool
    cancelling: bool
    schedule: str | None
    due: float | None
    problem: dict[str, Any] | None
    callback: str | None

    @property
    def ended(self) -> int:
        """Documents that have ended, however."""
        return self.succeeded + self.failed + self.cancelled + self.expired

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last document ends at the present pace; ``None`` while nobody can know."""
        if self.pace is None or self.paused or not self.sealed or self.state.final:
            return None
        return round(self.pace * (self.total - self.ended), 1)


@dataclass(frozen=True, slots=True)
class RunDocument:
    """What became of one document of a run; ``number`` is its place from 1, ``result`` a blob's name."""

    document: str
    number: int
    name: str | None
    state: str
    job: str | None
    result: str | None
    reused: bool
    seconds: float | None
    code: str | None
    detail: str | None


class Runs:
    """Accepts, steers and reads runs. Safe for threads; every method raises ``Unavailable`` when Redis is away."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._client = lifecycle.client
        self._keys = lifecycle.keys
        self._records = lifecycle.records

    def submit(self, submission: RunSubmission) -> tuple[Run, bool]:
        """Accept a run; answers its record and whether it is new (``False``: the idempotency key was seen before).

        Raises ``Conflict`` when the key was used for another request, or when the schedule's time is past already,
        ``BacklogFull`` or ``PayloadTooLarge`` as ``services.run_limits`` says.
        """
        work, settings = submission.work, self._lifecycle.settings
        check_name(work.tenant, "tenant")
        plain = record_fields(replace(work, request_id=None, callback=None))
        template = self._records.seal_job(work.tenant, plain, template=True)
        owners = owners_of(work.tenant, None, work.matter)
        fields = template | {
            "tenant": work.tenant,
            "id": new_id("run"),
            "name": self._records.seals.seal_text(work.tenant, "name", submission.name, owners),
            "template": json.dumps(template),
            "source": "matter" if submission.whole_matter else "client",
            "window": str(settings.run_window),
            "owner": submission.owner,
            "owner_limit": str(token_limits(settings, submission.limits).get("key", "")),
            "tokens_each": str(tokens_of(work.type, {}, 0, generates=work.model is not None)),
            "schedule": submission.schedule or "",
            "due": submission.due,
            "request_id": work.request_id or "",
            "callback": work.callback or "",
        }
        fields.pop("plan", None)
        argument: dict[str, Any] = {"fields": fields, "documents": submission.documents}
        argument |= acceptance(self._records, work, fields["input"])
        if submission.schedule:
            argument |= {"schedule": submission.schedule, "due": submission.due, "next": submission.next_due}
        else:
            argument["limits"] = run_limits(settings, submission.limits)
        verdict, *value = self._lifecycle.scripts.run("run_submit", argument)
        refuse_full(verdict, value)
        if verdict == "conflict":
            raise key_reused()
        if verdict == "past":
            raise Conflict(f"the schedule's time {value[0]} was dealt with before", code="schedule_past")
        refuse_barred(verdict, value[0])
        return self._run(pairs(value[0])), verdict == "accepted"

    def add(self, tenant: str, run: str, documents: Sequence[str]) -> Run:
        """Add documents to a run that is not sealed; those it has already are left as they are.

        Whoever adds, they count for the key that made the run, up to the limit that it had then; those that the run
        was accepted for are counted already. Raises ``NotFound`` for unknown documents, ``BacklogFull`` or
        ``PayloadTooLarge`` as ``services.run_limits`` says, of whose thousand none is then added; ``Conflict`` for a
        run that takes no more.
        """
        counted = {"limits": token_limits(self._lifecycle.settings, UNLIMITED)}
        record: Run | None = None
        for start in range(0, len(documents), ADD_BATCH):
            batch = list(documents[start : start + ADD_BATCH])
            argument = counted | {"tenant": tenant, "id": run, "documents": batch, "most": MAX_DOCUMENTS}
            verdict, *value = self._lifecycle.scripts.run("run_add", argument)
            if verdict == "unknown":
                shown = ", ".join(value[:3]) + (f" and {len(value) - 3} more" if len(value) > 3 else "")
                raise NotFound(f"there is no document {shown}", code="document_unknown")
            refuse_full(verdict, value)
            if verdict == "many":
                raise InvalidRequest(
                    f"a run takes {MAX_DOCUMENTS} documents at most; make a second run", code="run_full"
                )
            record = self._checked(run, verdict, value)
        return record or self.get(tenant, run)

    def seal(self, tenant: str, run: str) -> Run:
        """Say that no more documents come, so that the run can end."""
        return self._steer(tenant, run, "seal")

    def pause(self, tenant: str, run: str) -> Run:
        """Begin no further document; those under way go on to their end."""
        return self._steer(tenant, run, "pause")

    def resume(self, tenant: str, run: str) -> Run:
        """Go on after a pause."""
        return self._steer(tenant, run, "resume")

    def retry(self, tenant: str, run: str) -> Run:
        """Run the documents again that did not succeed; each goes on with the step that failed."""
        return self._steer(tenant, run, "retry")

    def cancel(self, tenant: str, run: str) -> Run:
        """Cancel a run: at once what waits, at its next step what is under way. One that has ended stays as it is."""
        self.get(tenant, run)
        self._lifecycle.cancel(tenant, run)
        return self.get(tenant, run)

    def get(self, tenant: str, run: str) -> Run:
        """The record of a run; raises ``NotFound``."""
        with redis_errors():
            fields = self._client.hgetall(self._keys("job", tenant=tenant, id=run))
        if "template" not in fields or "phase" in fields:  # a batch, of services.batches
            raise unknown("run", run)
        return self._run(fields)

    def list(
        self,
        tenant: str,
        *,
        matters: Collection[str] | None = None,
        schedule: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Run]:
        """The newest runs of a tenant, or of these matters of it, newest first; ``schedule`` keeps those of one.

        Raises code ``cursor_invalid``.
        """

        def rows(places: Sequence[Place]) -> Iterator[tuple[Place, Run]]:
            with redis_errors():
                pipeline = self._client.pipeline(transaction=False)
                for place in places:
                    pipeline.hgetall(self._keys("job", tenant=tenant, id=place.name))
                records: list[dict[str, str]] = pipeline.execute()
            for place, fields in zip(places, records, strict=True):
                seen = fields and (matters is None or fields.get("matter") in matters)
                if seen and schedule in (None, fields.get("schedule")):
                    yield place, self._run(fields)

        names = [self._keys("runs", tenant=tenant)]
        return page_of_newest(self._client, "runs", names, rows, cursor=cursor, limit=limit)

    def page(self, tenant: str, run: str, *, cursor: str | None, limit: int) -> Page[RunDocument]:
        """Documents of a run in the order in which they were added. Raises code ``cursor_invalid``."""
        after = read_cursor("run-documents", cursor)
        start = max(0, int(after.score)) if after else 0
        rows = self._rows(tenant, run, start, limit + 1)
        following = Place(start + limit, "-") if len(rows) > limit else None
        return Page(rows[:limit], write_cursor("run-documents", following) if following else None)

    def _rows(self, tenant: str, run: str, start: int, count: int) -> list[RunDocument]:
        """By number, ``start`` from 0, those that have not begun among them."""
        state = self.get(tenant, run).state
        never_begun = state.value if state.final else "waiting"
        with redis_errors():
            ids: list[str] = self._client.lrange(
                self._keys("run_order", tenant=tenant, id=run), start, start + count - 1
            )
            items: list[str | None] = (
                self._client.hmget(self._keys("run_items", tenant=tenant, id=run), ids) if ids else []
            )
        return [
            self._document(tenant, document, json.loads(text) if text else {"n": start + place, "state": never_begun})
            for place, (document, text) in enumerate(zip(ids, items, strict=True), 1)
        ]

    def documents(self, tenant: str, run: str) -> Iterator[RunDocument]:
        """All documents of a run in order, read page by page."""
        start = 0
        while rows := self._rows(tenant, run, start, PAGE):
            yield from rows
            start += PAGE

    def _steer(self, tenant: str, run: str, action: str) -> Run:
        argument = {"tenant": tenant, "id": run, "action": action}
        verdict, *value = self._lifecycle.scripts.run("run_steer", argument)
        return self._checked(run, verdict, value)

    def _checked(self, run: str, verdict: str, value: list[Any]) -> Run:
        if verdict == "missing":
            raise unknown("run", run)
        if verdict == "closed":
            raise Conflict(f"the run is {value[0]}, which does not allow this", code="run_state")
        return self._run(pairs(value[0]))

    def _run(self, stored: dict[str, str]) -> Run:
        fields = self._records.open_job(stored)
        active = self._keys("run_active", tenant=fields["tenant"], id=fields["id"])
        with redis_errors():
            under_way = int(self._client.scard(active))
        return Run(
            tenant=fields["tenant"],
            id=fields["id"],
            name=fields["name"],
            type=fields["type"],
            state=State(fields["state"]),
            priority=Priority(fields["priority"]),
            model=fields.get("model") or None,
            matter=fields.get("matter") or None,
            metadata=json.loads(fields["metadata"]),
            created=float(fields["created"]),
            started=float(fields.get("started", "0")),
            finished=float(fields.get("finished", "0")),
            total=int(fields.get("total", "0")),
            active=under_way,
            succeeded=int(fields.get("succeeded", "0")),
            failed=int(fields.get("failed", "0")),
            cancelled=int(fields.get("cancelled", "0")),
            expired=int(fields.get("expired", "0")),
            reused=int(fields.get("reused", "0")),
            pace=float(fields["pace"]) if "pace" in fields else None,
            paused=bool(fields.get("paused")),
            sealed=bool(fields.get("sealed")),
            cancelling=bool(fields.get("cancel")),
            schedule=fields.get("schedule") or None,
            due=float(fields["due"]) if fields.get("due") else None,
            problem=json.loads(fields["problem"]) if fields.get("problem") else None,
            callback=fields.get("callback") or None,
        )

    def _document(self, tenant: str, document: str, item: dict[str, Any]) -> RunDocument:
        return RunDocument(
            document=document,
            number=int(item["n"]),
            name=self._records.name(tenant, item["name"]) if item.get("name") else None,
            state=item["state"],
            job=item.get("job"),
            result=item.get("result") or None,
            reused=bool(item.get("reused")),
            seconds=round(item["seconds"], 3) if "seconds" in item else None,
            code=item.get("code"),
            detail=self._records.detail(tenant, item["detail"]) if item.get("detail") else None,
        )
