"""The messages that webhooks send, as the description has them: OpenAPI's ``webhooks``; the workers write them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from gateway.batch_schemas import RequestCounts
from gateway.described import Sparse
from gateway.openapi.answers import ref
from gateway.openapi.example_ids import EXAMPLE_IDS
from gateway.schemas import TypeName
from services.deliveries import TEST_EVENT
from services.webhooks import EVENTS


class Told(Sparse):
    """What a message is about, and by what you know it."""

    id: str = Field(description="of the job or run")
    url: str = Field(description="where it is: a path of the gateway, or a whole URL where its public one is set")
    created_at: datetime
    type: TypeName
    state: Literal["succeeded", "failed", "cancelled", "expired"]
    matter: str | None = None
    metadata: dict[str, str] | None = None
    omitted: list[Literal["metadata"]] | None = Field(
        default=None, description="what would have made the message too large"
    )
    code: str | None = Field(default=None, description="of the problem, where there is one")


class ToldOfJob(Told):
    """The job that has ended."""

    external_id: str | None = Field(default=None, description="your own name of the job")
    run: str | None = Field(default=None, description="the run that the job is of")


class ToldOfRun(Told):
    """The run that has ended, and what became of its documents."""

    total: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int


class StandardMessage(BaseModel):
    """A message by Standard Webhooks 1.0; it never holds text of a document."""

    timestamp: datetime


class JobMessage(StandardMessage):
    """A job has ended."""

    type: Literal["job.succeeded", "job.failed", "job.cancelled", "job.expired"]
    data: ToldOfJob


class RunMessage(StandardMessage):
    """A run has ended."""

    type: Literal["run.finished"]
    data: ToldOfRun


class ToldOfBatch(Sparse):
    """The batch that has ended."""

    id: str
    status: Literal["completed", "failed", "expired", "cancelled"]
    request_counts: RequestCounts
    url: str
    created_at: datetime
    code: str | None = Field(default=None, description="of the problem, where it failed")


class BatchMessage(StandardMessage):
    """A batch has ended, as OpenAI's event."""

    id: str = Field(description="of the event")
    object: Literal["event"]
    created_at: int
    type: Literal["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
    data: ToldOfBatch


class ToldOfNothing(BaseModel):
    """Nothing."""

    id: None
    metadata: dict[str, str]


class TestMessage(StandardMessage):
    """What `POST /v1/webhooks/{webhook_id}/test` sends: a message that is about nothing."""

    type: Literal["webhook.test"]
    data: ToldOfNothing


_MODELS: Final = {"job": JobMessage, "run": RunMessage, "batch": BatchMessage, "webhook": TestMessage}
_COUNTS: Final = {"total": 2, "succeeded": 2, "failed": 0, "cancelled": 0, "expired": 0}
_HEADERS: Final = {
    "webhook-id": ("Stands for the message, the same at every attempt: take each once.", EXAMPLE_IDS["delivery_id"]),
    "webhook-timestamp": ("Seconds since the epoch at this attempt; refuse old ones.", "1796034821"),
    "webhook-signature": (
        "`v1,` and the base64 HMAC-SHA256 of id, timestamp and body, joined by dots, under the endpoint's secret; two "
        "of them while a secret is being replaced.",
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    ),
}


def described_messages() -> dict[str, Any]:
    """The ``webhooks`` of the document, by event."""
    return {event: {"post": _message(event)} for event in (*EVENTS, TEST_EVENT)}


def _of_nothing(_: str) -> dict[str, Any]:
    return {"data": {"id": None, "metadata": {}}}


def _of_batch(end: str) -> dict[str, Any]:
    batch = EXAMPLE_IDS["batch_id"]
    counts = {"total": 300, "completed": 299, "failed": 1}
    data = {"id": batch, "status": end, "request_counts": counts, "url": f"/v1/batches/{batch}"}
    event = {"id": EXAMPLE_IDS["delivery_id"], "object": "event", "created_at": 1_796_035_221}
    return event | {"data": data | {"created_at": "2026-11-30T10:40:19.900Z"}}


def _of_job_or_run(kind: str, end: str) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": EXAMPLE_IDS[f"{kind}_id"],
        "type": "review",
        "state": "succeeded" if end == "finished" else end,
        "matter": "M-2041",
        "url": f"/v1/{kind}s/{EXAMPLE_IDS[f'{kind}_id']}",
        "created_at": "2026-11-30T10:40:19.900Z",
        "metadata": {"desk": "property"},
    }
    data |= {"external_id": "A-17"} if kind == "job" else _COUNTS
    data |= {"code": "document_encrypted"} if end == "failed" else {}
    return {"data": data}


def _message(event: str) -> dict[str, Any]:
    kind, _, end = event.partition(".")
    examples = {"batch": _of_batch, "webhook": _of_nothing}
    example = examples[kind](end) if kind in examples else _of_job_or_run(kind, end)
    example |= {"type": event, "timestamp": "2026-11-30T10:40:21.250Z"}
    return {
        "operationId": f"told_{event.replace('.', '_')}",
        "summary": f"{kind.capitalize()} {end}",
        "description": "Answer 2xx within 15 seconds and work afterwards; anything else is tried again for days.",
        "tags": ["webhooks"],
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": said,
                "schema": {"type": "string"},
                "example": one,
            }
            for name, (said, one) in _HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ref(_MODELS[kind]), "examples": {"told": {"value": example}}}},
        },
        "responses": {
            "2XX": {"description": "The message is taken"},
            "410": {"description": "Send no more: the endpoint is disabled"},
        },
    }
