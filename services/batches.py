"""OpenAI's batches: runs over the lines of a file, which one step checks before them and one writes down after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from services.acceptance import acceptance, key_reused, record_fields
from services.errors import Conflict, NotFound, unknown
from services.jobs import Claim, JobType, Priority, Submission, check_name, new_id
from services.lifecycle import Lifecycle
from services.object_lists import object_page
from services.principal import UNLIMITED, Limits
from services.redis_client import redis_errors
from services.run_limits import refuse_full, run_limits
from services.scripts import pairs
from services.tokens import TOKEN_BYTES

ENDPOINTS: Final = {
    "/v1/chat/completions": JobType.GENERATE,
    "/v1/completions": JobType.GENERATE,
    "/v1/embeddings": JobType.EMBED,
}
LINE_TASK: Final = "batch_line"
WINDOW_SECONDS: Final = 86400
# Expected seconds of a line, for fairness between tenants.
COSTS: Final = {JobType.GENERATE: 5.0, JobType.EMBED: 0.1}
# Lines that one script adds or reads; thousands more would keep an urgent job's script waiting.
ADD_BATCH: Final = 1000
_ENDS: Final = {"succeeded": "completed", "failed": "failed", "cancelled": "cancelled", "expired": "expired"}


@dataclass(frozen=True, slots=True)
class BatchSubmission:
    """A batch to be accepted.

    The key ``owner`` has these ``limits``; the output lies in its room, for ``lasts`` seconds, if any.
    """

    tenant: str
    endpoint: str
    file: str
    metadata: dict[str, str]
    owner: str = ""
    limits: Limits = UNLIMITED
    lasts: float | None = None
    idempotency_key: str | None = None
    request_hash: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The record of a batch; times are epoch seconds, 0.0 if not reached. ``status`` is OpenAI's word for its state."""

    tenant: str
    id: str
    endpoint: str
    file: str
    owner: str
    metadata: dict[str, str]
    model: str | None
    status: str
    cancel: str
    created: float
    expires: float
    in_progress: float
    finalizing: float
    cancelling: float
    finished: float
    total: int
    succeeded: int
    failed: int
    output: str | None
    errors: str | None
    lasts: float | None
    usage: dict[str, Any] | None
    request_id: str
    problem: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class LineEnd:
    """What became of a line: its ``state``, and the blob of its result or why it failed."""

    state: str
    result: str | None = None
    status: int = 500
    code: str = "internal"
    detail: str = ""


class Batches:
    """Accepts, cancels and reads batches. Safe for threads; methods raise ``Unavailable`` when Redis is away."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._client = lifecycle.client
        self._keys = lifecycle.keys
        self._scripts = lifecycle.scripts
        self._records = lifecycle.records

    def submit(self, submission: BatchSubmission) -> tuple[Batch, bool]:
        """Accept a batch; answers its record and whether it is new (``False``: the idempotency key was seen before).

        Raises ``NotFound`` for an unknown file, ``Conflict`` when the key was used for another request, ``BacklogFull``
        or ``PayloadTooLarge`` as ``services.run_limits`` says.
        """
        check_name(submission.tenant, "tenant")
        job_type, batch = ENDPOINTS[submission.endpoint], new_id("batch")
        line = Submission(
            tenant=submission.tenant,
            type=job_type,
            input={"batch": batch, "file": submission.file, "endpoint": submission.endpoint},
            priority=Priority.BULK,
            metadata={},
            cost=COSTS[job_type],
            idempotency_key=submission.idempotency_key,
            request_hash=submission.request_hash,
            request_id=submission.request_id,
        )
        record = record_fields(line) | {"task": LINE_TASK}
        fields = record | {
            "tenant": submission.tenant,
            "id": batch,
            "metadata": json.dumps(submission.metadata),
            "template": json.dumps(record | {"batch": batch}),
            "source": "lines",
            "window": str(self._lifecycle.settings.run_window),
            "endpoint": submission.endpoint,
            "file": submission.file,
            "owner": submission.owner,
            "lasts": "" if submission.lasts is None else str(submission.lasts),
        }
        fields = self._records.seal_job(submission.tenant, fields, template=True)
        argument: dict[str, Any] = {"fields": fields, "lasts": WINDOW_SECONDS} | acceptance(
            self._records, line, fields["input"]
        )
        argument |= {"limits": run_limits(self._lifecycle.settings, submission.limits), "token_bytes": TOKEN_BYTES}
        verdict, *value = self._scripts.run("batch_submit", argument)
        refuse_full(verdict, value)
        if verdict == "missing":
            raise unknown("file", value[0])
        if verdict == "conflict":
            raise key_reused()
        return _batch(self._records.open_job(pairs(value[0]))), verdict == "accepted"

    def get(self, tenant: str, batch: str) -> Batch:
        """The record of a batch; raises ``NotFound``."""
        with redis_errors():
            fields = self._client.hgetall(self._keys("job", tenant=tenant, id=batch))
        if "phase" not in fields:
            raise unknown("batch", batch)
        return _batch(self._records.open_job(fields))

    def list(self, tenant: str, *, after: str | None = None, limit: int = 20) -> tuple[list[Batch], bool]:
        """The batches of a tenant, newest first, and whether there are more; raises ``NotFound``."""

        def find(batch: str) -> Batch | None:
            try:
                return self.get(tenant, batch)
            except NotFound:
                return None

        index = self._keys("batches", tenant=tenant)
        return object_page(self._client, index, find, after=after, limit=limit, order="desc")

    def cancel(self, tenant: str, batch: str) -> Batch:
        """Cancel a batch: what is done is kept; raises ``Conflict`` for one that has ended or is about to."""
        record = self.get(tenant, batch)
        if record.status not in ("validating", "in_progress", "cancelling", "cancelled"):
            raise Conflict(f"cannot cancel a batch with status {record.status!r}", code="batch_state")
        self._lifecycle.cancel(tenant, batch)
        return self.get(tenant, batch)

    def add(self, step: Claim, lines: Sequence[str], model: str) -> bool:
        """Add lines that the check ``step`` found good; ``False`` when its attempt lost its claim."""
        return all(
            self._scripts.run("batch_add", _of(step) | {"lines": lines[start : start + ADD_BATCH], "model": model})
            for start in range(0, len(lines), ADD_BATCH)
        )

    def ends(self, tenant: str, batch: str, lines: Sequence[str]) -> list[LineEnd]:
        """What became of lines, in their order."""
        with redis_errors():
            items: list[str | None] = self._client.hmget(self._keys("run_items", tenant=tenant, id=batch), lines)
        return [self._end(tenant, json.loads(item)) if item else LineEnd("cancelled") for item in items]

    def record_output(self, step: Claim, files: dict[str, dict[str, Any]], usage: dict[str, Any]) -> bool:
        """Record what the last ``step`` wrote, ``output`` and ``errors``; ``False`` when its attempt lost its claim."""
        return bool(self._scripts.run("batch_output", _of(step) | files | {"usage": json.dumps(usage)}))

    def _end(self, tenant: str, item: dict[str, Any]) -> LineEnd:
        known = LineEnd(item["state"], item.get("result") or None)
        if "code" not in item:
            return known
        detail = self._records.detail(tenant, item["detail"])
        return replace(known, status=int(item["status"]), code=item["code"], detail=detail)


def _of(step: Claim) -> dict[str, Any]:
    return {"tenant": step.tenant, "id": step.input["batch"], "step": step.id, "attempt": str(step.attempt)}


def _batch(fields: dict[str, str]) -> Batch:
    cancel, phase = fields.get("cancel", ""), fields["phase"]
    status = _ENDS.get(fields["state"]) or ("cancelling" if cancel == "cancelled" else phase)
    lasts = fields.get("lasts")
    return Batch(
        tenant=fields["tenant"],
        id=fields["id"],
        endpoint=fields["endpoint"],
        file=fields["file"],
        owner=fields["owner"],
        metadata=json.loads(fields["metadata"]),
        model=fields.get("model") or None,
        status=status,
        cancel=cancel,
        created=float(fields["created"]),
        expires=float(fields["expires_at"]),
        in_progress=float(fields.get("in_progress", "0")),
        finalizing=float(fields.get("finalizing", "0")),
        cancelling=float(fields.get("cancelling", "0")),
        finished=float(fields.get("finished", "0")),
        total=int(fields.get("total", "0")),
        succeeded=int(fields.get("succeeded", "0")),
        failed=int(fields.get("failed", "0")),
        output=fields.get("output"),
        errors=fields.get("errors"),
        lasts=float(lasts) if lasts else None,
        usage=json.loads(fields["usage"]) if "usage" in fields else None,
        request_id=fields["request_id"],
        problem=json.loads(fields["problem"]) if fields.get("problem") else None,
    )
