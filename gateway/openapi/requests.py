"""Requests as examples of the description, by operation and name: each is sent to a running stack by the tests.

``tests/integration/test_examples.py`` sends them with the ids of things that are there in the place of
:data:`~gateway.openapi.example_ids.EXAMPLE_IDS`; what was answered is kept in ``answers/`` beside this file and stands
under the same name in the description. ``python -m tests.record_examples`` writes it anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from gateway.openapi.example_ids import EXAMPLE_IDS


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``parameters`` are of the path, the query and headers, by name; ``body`` is JSON-ready, or a text.

    In a multipart form, the member ``file`` is the content of a file.
    """

    summary: str
    body: Any = None
    media_type: str = "application/json"
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])


_ID: Final = EXAMPLE_IDS
LEASE: Final = """\
LEASE

1. This Lease is made on 3 March 2025 between Harbour Estates Ltd, the landlord, and Maria Quist, the tenant.

2. The rent is 1,450 pounds a month. The tenant may sublet the premises. Write to m.quist@example.org.

3. This Lease is governed by the laws of England and Wales.
"""
PLAYBOOK: Final = """\
name: lease
title: Leases
categories:
  - id: subletting
    title: Subletting
    weight: 0.4
    literals: [sublet, underlet]
    risk: {present: Check whom the tenant may let to.}
  - id: rent_review
    title: Rent review
    weight: 0.3
    required: true
    literals: [rent review]
    risk: {missing: The rent never changes.}
rules:
  - id: no_free_subletting
    title: No subletting without consent
    kind: forbidden
    category: subletting
    severity: high
    unless: ['with the (prior )?(written )?consent']
    reason: The landlord would not know who uses the premises.
"""
REVIEW: Final = {"type": "review", "document": _ID["document_id"], "playbook": "lease", "matter": "M-2041"}
_LINES: Final = (
    '{"type": "generate", "input": {"prompt": "Sum up: The tenant may sublet."}, "external_id": "A-1"}\n'
    '{"type": "generate", "model": "gpt-4o", "input": {"prompt": "Sum up: Rent is due in advance."}}\n'
)
_BATCH_LINE: Final = (
    '{"custom_id": "clause-1", "method": "POST", "url": "/v1/completions", '
    f'"body": {{"model": "{_ID["model_id"]}", "prompt": "Sum up: The tenant may sublet."}}}}\n'
)
_MESSAGES: Final = [{"role": "user", "content": "Who may sublet? The tenant may sublet the premises."}]
_MONTHLY: Final = {
    "name": "Leases at the end of the month",
    "cron": "0 22 28 * *",
    "time_zone": "Europe/London",
    "run": {"type": "review", "matter": "M-2041", "playbook": "lease"},
}
_PLAIN: Final = {"plain": Request("As it is")}

REQUESTS: Final[dict[str, dict[str, Request]]] = {
    "upload_document": {
        "bytes": Request(
            "The bytes as they are",
            LEASE,
            "application/octet-stream",
            {"name": "lease.txt", "matter": "M-2041"},
        ),
        "form": Request("A form with one file", {"file": LEASE}, "multipart/form-data", {"matter": "M-2041"}),
    },
    "list_documents": {"matter": Request("Those of a matter", parameters={"matter": "M-2041", "limit": 2})},
    "submit_job": {
        "review": Request(
            "A review of a document",
            REVIEW | {"external_id": "A-17", "metadata": {"desk": "property"}, "priority": "high"},
            parameters={"Idempotency-Key": "A-17-review"},
        ),
        "generate": Request(
            "Text, waited for",
            {"type": "generate", "input": {"messages": _MESSAGES, "max_tokens": 24}},
            parameters={"Prefer": "wait=20"},
        ),
        "many": Request("Many jobs, a line each", _LINES, "application/x-ndjson"),
    },
    "list_jobs": {
        "matter": Request(
            "Those of a matter that have succeeded", parameters={"matter": "M-2041", "state": ["succeeded"]}
        )
    },
    "retry_job": {"failed": Request("One that failed", parameters={"job_id": _ID["failed_job_id"]})},
    "replay_dead_letter": {"failed": Request("One that failed", parameters={"job_id": _ID["failed_job_id"]})},
    "list_dead_letters": {"first": Request("The newest", parameters={"limit": 1})},
    "follow_events": {"kept": Request("All that are kept", parameters={"Last-Event-ID": "0"})},
    "search_documents": {
        "matter": Request("In all of a matter", {"query": "who may sublet", "matter": "M-2041", "k": 3}),
        "documents": Request(
            "In documents, waited for",
            {"query": "who may sublet", "documents": [_ID["document_id"]], "k": 1},
            parameters={"Prefer": "wait=20"},
        ),
    },
    "compare_documents": {
        "versions": Request(
            "Two versions, waited for",
            {"before": _ID["document_id"], "after": _ID["other_document_id"]},
            parameters={"Prefer": "wait=20"},
        ),
        "later": Request("Two versions", {"before": _ID["document_id"], "after": _ID["other_document_id"]}),
    },
    "find_duplicates": {
        "matter": Request("Among all of a matter", {"matter": "M-2041", "threshold": 0.7}),
        "documents": Request(
            "Among documents, waited for",
            {"documents": [_ID["document_id"], _ID["other_document_id"]], "threshold": 0.5},
            parameters={"Prefer": "wait=20"},
        ),
    },
    "count_findings": {
        "matter": Request("In all of a matter", {"matter": "M-2041", "playbook": "lease"}),
        "documents": Request(
            "In documents, waited for",
            {"documents": [_ID["document_id"], _ID["other_document_id"]], "playbook": "lease"},
            parameters={"Prefer": "wait=20"},
        ),
    },
    "create_run": {
        "documents": Request(
            "Over documents",
            {"name": "March", "documents": [_ID["document_id"], _ID["other_document_id"]], "playbook": "lease"},
            parameters={"Idempotency-Key": "march"},
        ),
        "matter": Request("Over all of a matter", {"name": "Portfolio", "matter": "M-2041", "playbook": "lease"}),
        "open": Request("Over what is added afterwards", {"name": "As they come", "open": True, "type": "analyze"}),
    },
    "add_run_documents": {"document": Request("One document", {"documents": [_ID["document_id"]]})},
    "list_runs": {"first": Request("The newest", parameters={"limit": 1})},
    "get_run_results": {
        "lines": Request("With everything", parameters={"format": "jsonl"}),
        "table": Request("As a table", parameters={"format": "csv"}),
    },
    "create_schedule": {"monthly": Request("Once a month", _MONTHLY)},
    "list_playbooks": {"first": Request("The first", parameters={"limit": 2})},
    "upload_playbook": {
        "lease": Request("A playbook for leases", PLAYBOOK, "application/yaml"),
        "again": Request("The same content again", PLAYBOOK, "application/yaml"),
    },
    "validate_playbook": {"lease": Request("A playbook for leases", PLAYBOOK, "application/yaml")},
    "test_playbook": {
        "stored": Request("One that is kept", {"document": _ID["document_id"], "playbook": "lease"}),
        "text": Request(
            "One that is not kept, waited for",
            {"document": _ID["document_id"], "text": PLAYBOOK},
            parameters={"Prefer": "wait=20"},
        ),
    },
    "diff_playbook": {"included": Request("With one that comes along", parameters={"from": "nda", "to": "lease"})},
    "register_webhook": {
        "ends": Request(
            "Of jobs that succeed or fail",
            {"url": "http://127.0.0.1:9/cases", "events": ["job.succeeded", "job.failed"], "matter": "M-2041"},
        )
    },
    "rotate_secret": {"soon": Request("With an hour for both", {"grace_seconds": 3600})},
    "list_deliveries": {"failed": Request("Those that failed", parameters={"state": ["failed"], "limit": 1})},
    "create_chat_completion": {
        "whole": Request("A whole answer", {"model": _ID["model_id"], "messages": _MESSAGES, "max_tokens": 24}),
        "streamed": Request(
            "In pieces",
            {"model": _ID["model_id"], "messages": _MESSAGES, "max_tokens": 4, "stream": True},
            parameters={"X-Casemill-Priority": "normal"},
        ),
    },
    "create_completion": {
        "whole": Request("A whole answer", {"model": _ID["model_id"], "prompt": "The tenant may", "max_tokens": 12}),
        "streamed": Request(
            "In pieces", {"model": _ID["model_id"], "prompt": "The tenant may", "max_tokens": 3, "stream": True}
        ),
    },
    "create_embeddings": {
        "one": Request(
            "One text", {"model": _ID["embedding_model_id"], "input": "The tenant may sublet.", "dimensions": 4}
        ),
        "many": Request(
            "Several, as base64",
            {
                "model": _ID["embedding_model_id"],
                "input": ["rent", "notice"],
                "dimensions": 4,
                "encoding_format": "base64",
            },
        ),
    },
    "upload_file": {
        "batch": Request("Requests for a batch", {"file": _BATCH_LINE, "purpose": "batch"}, "multipart/form-data")
    },
    "list_files": {"first": Request("The newest", parameters={"limit": 1, "purpose": "batch"})},
    "create_batch": {
        "completions": Request(
            "Completions",
            {"input_file_id": _ID["file_id"], "endpoint": "/v1/completions", "completion_window": "24h"},
        )
    },
    "list_batches": {"first": Request("The newest", parameters={"limit": 1})},
    "make_key": {
        "matter": Request(
            "For a case-management system, of one matter",
            {
                "name": "case management",
                "scopes": ["submit", "read"],
                "matters": ["M-2041"],
                "requests_per_minute": 600,
                "expires_at": "2035-01-31T00:00:00Z",
            },
        )
    },
    "rotate_key": {"soon": Request("With an hour for both", {"grace_seconds": 3600})},
    "change_worker_bounds": {"one": Request("At least one", {"min": 1})},
    "read_audit_log": {"first": Request("The oldest entries", parameters={"limit": 2})},
}
"""Those that say something; any other operation has the one request that its path is."""


def requests_of(operation: str) -> dict[str, Request]:
    """The requests of an operation by name, at least one."""
    return REQUESTS.get(operation, _PLAIN)
