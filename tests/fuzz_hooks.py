"""What schemathesis is taught of our API, and which of its findings are none: each with the reason."""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData

from gateway.openapi.job_codes import READING
from services.paging import Place, write_cursor

LINES = "application/x-ndjson"
# What a request can mean wrongly although every part of it is well formed: no JSON schema says so.
BEYOND_SCHEMAS = dict.fromkeys(READING, "bytes that are a document") | {
    "bounds_invalid": "the least is not above the most, and the machine has room for it",
    "callback_unknown": "names an endpoint that is there",
    "context_exceeded": "as long as the model takes",
    "device_unavailable": "names what some worker has",
    "dimensions_invalid": "as wide as the model's vectors",
    "document_required": "goes with the type of the job",
    "documents_required": "goes with the type of the job",
    "event_id_invalid": "an id of the stream, digits and a dash",
    "input_invalid": "goes with the type of the job",
    "lines_missing": "a body with a line",
    "matters_invalid": "named matters go with the scopes submit and read",
    "matter_required": "a schedule's run goes over a matter",
    "model_unknown": "names a model that is there",
    "name_invalid": "a tenant's name",
    "playbook_ambiguous": "the one or the other",
    "playbook_invalid": "a text that is a playbook",
    "playbook_unknown": "names a playbook that is there",
    "playbook_version_first": "has a version before",
    "purpose_wrong": "a file of requests",
    "sampling_invalid": "what the engine can do",
    "schedule_invalid": "a recurrence that can be followed",
    "schema_unsupported": "what the engine can be held to",
    "text_invalid": "text without NUL",
    "time_invalid": "a time with a zone, and the later one later",
    "time_past": "a time to come",
    "type_unknown": "runs go over documents",
    "token_unknown": "a token of the model's",
    "webhook_address_refused": "within the networks allowed",
    "webhook_unresolved": "a host that is there",
    "webhook_url_invalid": "an address that messages can go to",
}
# The same, said by a model's own check of its members together.
TOGETHER = (
    "top_logprobs needs logprobs",
    "best_of other than n is not supported",
    "makes more than 128 choices",
    "a message needs content",
    "only an assistant's message calls tools",
    "json_schema goes with type json_schema",
    "Too many fields",
    "Input should be less than or equal to 9223372036854775807",  # schemathesis tries a little more, and a little less
    "Input should be greater than or equal to -9223372036854775808",
)
CURSORS = {
    "/v1/audit": "audit",
    "/v1/dead-letters": "dead-letters",
    "/v1/documents": "documents",
    "/v1/jobs": "jobs",
    "/v1/playbooks": "playbooks",
    "/v1/runs": "runs",
    "/v1/runs/{run_id}/documents": "run-documents",
    "/v1/schedules": "schedules",
    "/v1/webhooks/{webhook_id}/deliveries": "deliveries",
}
_numbers = itertools.count()


@schemathesis.serializer(LINES, "application/yaml")
def as_text(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """Bodies of lines and of YAML are texts as they are."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.hook
def filter_case(_: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Whatever stands there is a text: a body of lines that is none has been made into one, and is answered by line."""
    return case.media_type != LINES or isinstance(case.body, str)


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, __: dict[str, Any]) -> None:
    """Spare the key that asks, and give good requests a cursor of their list and an idempotency key of their own.

    Made-up cursors and repeated keys are what ``test_gateway_fuzz.py`` is about.
    """
    own = os.environ.get("FUZZING_KEY_ID")
    if case.path_parameters and case.path_parameters.get("key_id") == own:
        case.path_parameters["key_id"] = "0" * 12
    if case.meta and not case.meta.generation.mode.is_positive:
        return
    if case.query and isinstance(case.query.get("cursor"), str):
        case.query["cursor"] = write_cursor(CURSORS[case.operation.path], Place(float(next(_numbers)), "x"))
    if case.headers and case.headers.get("Idempotency-Key"):
        case.headers["Idempotency-Key"] = f"key {own} {next(_numbers)}"  # several processes fuzz the same stack in turn


@schemathesis.hook
def filter_failure(
    _: schemathesis.HookContext, failure: Failure, __: schemathesis.Case, response: schemathesis.Response
) -> bool:
    """A good request may be refused for what it means."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    problem = response.json()
    return problem["code"] not in BEYOND_SCHEMAS and not any(rule in problem["detail"] for rule in TOGETHER)
