"""The lines of a batch's file: found in a stream of blocks, checked as OpenAI checks them, and written as it does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, cast

from services import openai_answers
from services.batches import Batch, LineEnd
from services.errors import InvalidRequest

LINE_BYTES: Final = 8 * 2**20
"""Longest line, as long as the body of a request may be."""
MOST_LINES: Final = 50_000
MOST_ERRORS: Final = 100
MOST_ID: Final = 512
_UNFINISHED: Final = {
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank: its ``number`` in the file from 1, where it lies, its bytes unless it is too long."""

    number: int
    start: int
    length: int
    data: bytes | None

    @property
    def place(self) -> str:
        """The line as a job names it."""
        return f"{self.start}:{self.length}"


def lines(blocks: Iterable[bytes]) -> Iterator[Line]:
    """The lines of a file; no more of it is in memory than a line may have."""
    number = start = length = 0
    parts: list[bytes] = []

    def line() -> Line:
        return Line(number, start, length, b"".join(parts) if length <= LINE_BYTES else None)

    blank = True
    for block in blocks:
        pieces = block.split(b"\n")
        for piece, ended in [(piece, True) for piece in pieces[:-1]] + [(pieces[-1], False)]:
            length += len(piece)
            blank = blank and not piece.strip()
            parts = [*parts, piece] if length <= LINE_BYTES else []
            if not ended:
                continue
            number += 1
            if not blank:
                yield line()
            start, length, parts, blank = start + length + 1, 0, [], True
    number += 1
    if not blank:
        yield line()


def read_line(data: bytes) -> Any:
    """The JSON of a line; raises ``ValueError`` for what is none."""
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


class LinesInvalid(InvalidRequest):
    """The file of a batch cannot be run; ``errors`` are OpenAI's, one for each line that is wrong."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("lines of the file are invalid; correct them and create a new batch", code="batch_invalid")
        self._errors = errors

    def problem(self) -> dict[str, Any]:
        """With the errors."""
        return super().problem() | {"errors": self._errors}


@dataclass
class Check:
    """Takes the lines of a file one after the other and says in the end whether a batch can run over them.

    ``models`` are those that serve the ``endpoint``; all lines have the first one's.
    """

    endpoint: str
    models: Collection[str]
    model: str | None = None
    places: list[str] = field(default_factory=list[str])
    _wrong: int = 0
    _errors: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    _seen: set[bytes] = field(default_factory=set[bytes])

    def take(self, line: Line) -> None:
        """Look at the next line."""
        self.places.append(line.place)
        if len(self.places) > MOST_LINES:
            raise LinesInvalid([_error("too_many_requests", f"A batch has {MOST_LINES} requests at most.")])
        if problem := self._problem(line):
            self._wrong += 1
            if len(self._errors) < MOST_ERRORS:
                self._errors.append(_error(*problem, line=line.number))

    def finish(self) -> str:
        """The model of all lines; raises :class:`LinesInvalid`."""
        if not self.places:
            raise LinesInvalid([_error("empty_file", "The file is empty. It needs a request on each line.")])
        if unnamed := self._wrong - len(self._errors):
            self._errors.append(_error("too_many_errors", f"{unnamed} more lines are invalid."))
        if self._errors or self.model is None:
            raise LinesInvalid(self._errors)
        return self.model

    def _problem(self, line: Line) -> tuple[str, str, str | None] | None:
        """Code, message and parameter of what is wrong with a line."""
        if line.data is None:
            return "line_too_long", f"This line has more than {LINE_BYTES} bytes.", None
        try:
            request = read_line(line.data)
        except ValueError:
            return "invalid_json_line", "This line is not parseable as valid JSON.", None
        if not isinstance(request, dict):
            return "invalid_json_line", "This line is not a JSON object.", None
        return self._wrong_request(cast(dict[str, Any], request))

    def _wrong_request(self, request: Mapping[str, Any]) -> tuple[str, str, str | None] | None:
        kinds = {"custom_id": str, "method": str, "url": str, "body": dict}
        for name, kind in kinds.items():
            if request.get(name) is None:
                return "missing_required_parameter", f"Missing required parameter: '{name}'.", name
            if not isinstance(request[name], kind):
                return "invalid_type", f"Invalid type for '{name}'.", name
        name = request["custom_id"]
        if not 0 < len(name) <= MOST_ID:
            return "invalid_custom_id", f"The custom_id parameter needs 1 to {MOST_ID} characters.", "custom_id"
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:16]
        if digest in self._seen:
            return (
                "duplicate_custom_id",
                "The custom_id of this request is a duplicate of another request's; it must be unique in a batch.",
                "custom_id",
            )
        self._seen.add(digest)
        if request["method"] != "POST":
            return "invalid_method", "The method of each request must be POST.", "method"
        if request["url"] != self.endpoint:
            return "invalid_url", f"The URL of this request is not the batch's endpoint {self.endpoint}.", "url"
        return self._wrong_model(request["body"].get("model"))

    def _wrong_model(self, model: Any) -> tuple[str, str, str] | None:
        if not isinstance(model, str):
            return "missing_required_parameter", "Missing required parameter: 'body.model'.", "body.model"
        if model not in self.models:
            return "model_not_found", f"The model {model[:100]!r} does not exist for {self.endpoint}.", "body.model"
        if self.model is None:
            self.model = model
        if model != self.model:
            return "mismatched_model", "All requests of a batch must use the same model.", "body.model"
        return None


def _error(code: str, message: str, param: str | None = None, line: int | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}


def written(batch: Batch, number: int, custom_id: Any, end: LineEnd, body: dict[str, Any] | None) -> bytes:
    """The line of the output file, or of the error file where there is no ``body``."""
    response, error = None, None
    if body is not None:
        response = {"status_code": 200, "request_id": batch.request_id, "body": body}
    elif end.state == "failed":
        told = {"error": openai_answers.error(end.detail, end.code)}
        response = {"status_code": end.status, "request_id": batch.request_id, "body": told}
    else:
        code, message = _UNFINISHED["expired" if batch.cancel == "expired" else "cancelled"]
        error = {"code": code, "message": message}
    name = f"batch_req_{batch.id.partition('_')[2]}_{number}"
    row = {"id": name, "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(row).encode() + b"\n"
