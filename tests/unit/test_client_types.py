"""The client's types are those of the gateway, which declares its own: what one learns, the other is told to learn."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

import casemill
from casemill import jobs
from casemill.models import FINAL
from casemill.runs import MOST_DOCUMENTS
from gateway.job_lines import MOST_LINES, JobLine
from gateway.routes.matters import ErasureView
from gateway.run_schemas import RunDocumentsRequest, RunRequest, RunView
from gateway.schemas import DocumentView, JobRequest, JobView
from services.events import FINAL as FINAL_EVENTS


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (casemill.Document, DocumentView),
        (casemill.Erasure, ErasureView),
        (casemill.Job, JobView),
        (casemill.Run, RunView),
    ],
)
def test_answers_have_the_gateways_members(ours: type[BaseModel], theirs: type[BaseModel]) -> None:
    assert set(ours.model_fields) == set(theirs.model_fields)
    for name, field in ours.model_fields.items():
        # What the gateway may leave empty can be empty here, and what it always has is what it is.
        declared, there = str(field.annotation), str(theirs.model_fields[name].annotation)
        assert declared == there, name


@pytest.mark.parametrize(
    ("ours", "theirs", "apart"),
    [
        (casemill.JobOptions, JobRequest, {"type"}),
        (casemill.JobRequest, JobLine, set[str]()),
        (casemill.RunOptions, RunRequest, set[str]()),
    ],
)
def test_what_can_be_asked_is_what_the_gateway_takes(ours: Any, theirs: type[BaseModel], apart: set[str]) -> None:
    assert set(ours.__annotations__) | apart == set(theirs.model_fields)


def test_requests_are_as_large_as_the_gateway_takes() -> None:
    (most,) = [each.max_length for each in RunDocumentsRequest.model_fields["documents"].metadata]
    assert most == MOST_DOCUMENTS
    assert jobs.MOST_LINES == MOST_LINES


def test_ends_are_the_same() -> None:
    assert FINAL == FINAL_EVENTS


def test_url_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CASEMILL_URL", "CASEMILL_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="casemill keys create"):
        casemill.Casemill()
    with pytest.raises(ValueError, match="no URL"):
        casemill.AsyncCasemill("gateway:8700", "cm_x_y")
    monkeypatch.setenv("CASEMILL_KEY", "cm_x_secret")
    with casemill.Casemill() as client:
        assert repr(client) == "Casemill('http://127.0.0.1:8700')"
    monkeypatch.setenv("CASEMILL_URL", "https://gateway.test/casemill")
    with casemill.Casemill() as client:
        assert repr(client) == "Casemill('https://gateway.test/casemill/')"
