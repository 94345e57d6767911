"""Where an answer leads: the operations that take the id of what was made, as links of the description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Leads:
    """The answer's member at ``pointer`` is the ``parameter`` of these operations."""

    parameter: str
    operations: tuple[str, ...]
    pointer: str = "/id"


_JOB: Final = Leads("job_id", ("get_job", "follow_job", "cancel_job", "retry_job"))
_RUN: Final = Leads(
    "run_id",
    (
        "get_run",
        "list_run_documents",
        "add_run_documents",
        "seal_run",
        "pause_run",
        "resume_run",
        "retry_run",
        "cancel_run",
        "follow_run",
        "get_run_results",
    ),
)
_SCHEDULE: Final = Leads("schedule_id", ("get_schedule", "pause_schedule", "resume_schedule", "remove_schedule"))
_FILE: Final = Leads("file_id", ("get_file", "read_file", "delete_file"))
_BATCH: Final = Leads("batch_id", ("get_batch", "cancel_batch"))
_KEY: Final = Leads("key_id", ("get_key", "rotate_key", "revoke_key"))
_WEBHOOK: Final = Leads(
    "webhook_id",
    (
        "get_webhook",
        "disable_webhook",
        "enable_webhook",
        "rotate_secret",
        "test_webhook",
        "list_deliveries",
        "remove_webhook",
    ),
)
_FIRST: Final = "/data/0/id"
LINKS: Final[dict[str, Leads]] = {
    "upload_document": Leads("document_id", ("get_document", "get_document_text", "delete_document")),
    "submit_job": _JOB,
    "retry_job": _JOB,
    "search_documents": _JOB,
    "compare_documents": _JOB,
    "find_duplicates": _JOB,
    "count_findings": _JOB,
    "test_playbook": _JOB,
    "list_dead_letters": Leads("job_id", ("replay_dead_letter",), _FIRST),
    "create_run": _RUN,
    "create_schedule": _SCHEDULE,
    "upload_playbook": Leads("playbook", ("get_playbook", "diff_playbook", "remove_playbook"), "/name"),
    "register_webhook": _WEBHOOK,
    "list_deliveries": Leads("delivery_id", ("get_delivery", "replay_delivery"), _FIRST),
    "upload_file": _FILE,
    "create_batch": _BATCH,
    "make_key": _KEY,
    "list_models": Leads("model_id", ("get_model",), _FIRST),
}


def add_links(operation: dict[str, Any]) -> None:
    """Add the links of an operation to the answers that carry what they need."""
    leads = LINKS.get(operation["operationId"])
    if leads is None:
        return
    # What the path of the operation names is named by the paths that it leads to as well.
    carried = {
        item["name"]: f"$request.path.{item['name']}" for item in operation["parameters"] if item["in"] == "path"
    }
    parameters = {f"path.{name}": value for name, value in carried.items() if name != leads.parameter}
    parameters[f"path.{leads.parameter}"] = f"$response.body#{leads.pointer}"
    for status, answer in operation["responses"].items():
        if status.startswith("2") and "application/json" in answer.get("content", {}):
            answer["links"] = {name: {"operationId": name, "parameters": parameters} for name in leads.operations}
