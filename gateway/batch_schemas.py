"""The wire types of OpenAI's files and batches; times are whole seconds since the epoch."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.described import Described
from gateway.schemas import named
from services.batches import Batch
from services.files import File
from services.jobs import Metadata
from services.json_model import JsonModel

STATUSES = (
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
)
LASTS = 30 * 86400
"""Seconds for which OpenAI keeps files of batches where nobody says how long."""


After = Annotated[str | None, Query(description="the last id of the page before")]


class ExpiresAfter(BaseModel):
    """How long a file is kept from its creation on."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class FileView(BaseModel):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None

    @classmethod
    def of(cls, file: File) -> FileView:
        """The view of a record."""
        return cls(
            id=file.id,
            bytes=file.bytes,
            created_at=int(file.created),
            expires_at=_time(file.expires),
            filename=file.filename,
            purpose=file.purpose,
        )


class FileRemoved(BaseModel):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class BatchRequest(JsonModel):
    """Requests of one endpoint, as a file of lines, to be answered within a day."""

    input_file_id: str = Field(min_length=1, max_length=128)
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
    completion_window: Literal["24h"]
    metadata: Metadata = Field(default_factory=dict[str, str])
    output_expires_after: ExpiresAfter = ExpiresAfter(anchor="created_at", seconds=LASTS)

    @field_validator("metadata", mode="before")
    @classmethod
    def _none_where_null(cls, value: Any) -> Any:
        return {} if value is None else value


class RequestCounts(BaseModel):
    """Lines in all, answered, and failed; those that a cancelled or expired batch left are neither."""

    total: int
    completed: int
    failed: int


class BatchError(BaseModel):
    """What is wrong with the file, or with one of its lines."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(BaseModel):
    """Why a batch failed."""

    object: Literal["list"]
    data: list[BatchError]


class CachedTokens(BaseModel):
    """Tokens that were computed before; never any."""

    cached_tokens: int


class ReasoningTokens(BaseModel):
    """Tokens of reasoning; never any."""

    reasoning_tokens: int


class BatchUsage(BaseModel):
    """Tokens that were read and written."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class BatchView(BaseModel):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: Annotated[dict[str, Any] | None, Described(BatchErrors | None)] = Field(description="why it failed")
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: Annotated[str, named(STATUSES)]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: Annotated[dict[str, Any] | None, Described(BatchUsage | None)] = Field(description="tokens of all answers")
    metadata: dict[str, str]

    @classmethod
    def of(cls, batch: Batch) -> BatchView:
        """The view of a record."""
        ended = {batch.status: _time(batch.finished)}
        return cls(
            id=batch.id,
            endpoint=batch.endpoint,
            model=batch.model,
            errors=_errors(batch),
            input_file_id=batch.file,
            status=batch.status,
            output_file_id=batch.output,
            error_file_id=batch.errors,
            created_at=int(batch.created),
            in_progress_at=_time(batch.in_progress),
            expires_at=int(batch.expires),
            finalizing_at=_time(batch.finalizing),
            cancelling_at=_time(batch.cancelling if batch.cancel == "cancelled" else 0),
            request_counts=RequestCounts(total=batch.total, completed=batch.succeeded, failed=batch.failed),
            usage=None if batch.usage is None else _usage(batch.usage),
            metadata=batch.metadata,
            completed_at=ended.get("completed"),
            failed_at=ended.get("failed"),
            expired_at=ended.get("expired"),
            cancelled_at=ended.get("cancelled"),
        )


View = TypeVar("View", FileView, BatchView)


class ObjectList(BaseModel, Generic[View]):
    """A page as OpenAI's clients read it."""

    object: Literal["list"] = "list"
    data: list[View]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, views: list[View], more: bool) -> Self:
        """The page of these views."""
        first, last = (views[0].id, views[-1].id) if views else (None, None)
        return cls(data=views, first_id=first, last_id=last, has_more=more)


class FileList(ObjectList[FileView]):
    """A page of files, and whether there are more after ``last_id``."""


class BatchList(ObjectList[BatchView]):
    """A page of batches, and whether there are more after ``last_id``."""


def _errors(batch: Batch) -> dict[str, Any] | None:
    if batch.problem is None:
        return None
    whole = {"code": batch.problem["code"], "message": batch.problem["detail"], "param": None, "line": None}
    return {"object": "list", "data": batch.problem.get("errors", [whole])}


def _usage(used: dict[str, Any]) -> dict[str, Any]:
    return {
        "input_tokens": used.get("prompt_tokens", 0),
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": used.get("completion_tokens", 0),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used.get("total_tokens", 0),
    }


def _time(seconds: float | None) -> int | None:
    return int(seconds) if seconds else None
