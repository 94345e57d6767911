"""What the scripts that accept work are given of a submission, and how their refusals are told."""

from __future__ import annotations

import json
from typing import Any

from services.errors import Conflict, Unavailable, unknown
from services.jobs import Submission
from services.sealed_records import SealedRecords


def record_fields(submission: Submission) -> dict[str, str]:
    """The fields of a new record, without tenant and id."""
    payload = json.dumps(submission.input, sort_keys=True)
    fields: dict[str, str] = {
        "type": submission.type,
        "task": submission.type,
        "lane": submission.lane,
        "device": submission.device,
        "priority": submission.priority,
        "cost": str(submission.cost),
        "model": submission.model or "",
        "matter": submission.matter or "",
        **({"document": submission.document} if submission.document else {}),
        "input": payload,
        **(
            {"blob": submission.input["blob"]} if "blob" in submission.input else {}
        ),  # never sealed, so it can be asked
        "metadata": json.dumps(submission.metadata),
        "request_id": submission.request_id or "",
        "callback": submission.callback or "",
        "external_id": submission.external_id or "",
        "bytes": str(submission.bytes or len(payload)),
    }
    if submission.plan:
        fields["plan"] = json.dumps([step.fields() for step in submission.plan])
    return fields


def acceptance(records: SealedRecords, submission: Submission, payload: str) -> dict[str, Any]:
    """What the scripts that accept work need beside the record: times, and the idempotency key."""
    argument: dict[str, Any] = {}
    if submission.not_before is not None:
        argument["not_before"] = submission.not_before
    if submission.expires_at is not None:
        argument["expires"] = submission.expires_at
    if submission.idempotency_key:
        tenant, request = submission.tenant, submission.request_hash or payload
        argument["idempotency_key"] = records.digest(tenant, "idempotency", submission.idempotency_key)
        argument["payload_hash"] = records.digest(tenant, "request", request)
    return argument


def key_reused() -> Conflict:
    """The refusal of an idempotency key that stood for another request."""
    return Conflict("this Idempotency-Key was used for a different request", code="idempotency_mismatch", status=422)


def refuse_barred(verdict: str, value: Any) -> None:
    """Raise why a script accepted nothing about a document or a matter: it is gone, or is being erased."""
    if verdict == "gone":
        raise unknown("document", str(value))
    if verdict == "erasing":
        raise Unavailable(f"{value} is being erased; try again in a moment", code="erasing")
