"""Every route with the scope that it needs and a good request for it: what the walk with wrong keys goes through.

A new route stands here, or ``tests/integration/test_every_route.py`` fails. ``{document_id}`` and the like, in the path
and in the body, are things of one tenant's matter M-1 that ``test_every_route`` makes; a new one is made there too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Route:
    """``scope`` is ``None`` for what anybody may ask; ``of_no_matter`` is what keys for other matters get too.

    ``waits`` marks what answers only when a worker has worked, or without end. ``sends`` is JSON, or bytes as they are,
    which with ``form`` are multipart with the boundary B.
    """

    scope: str | None
    sends: Any = None
    query: dict[str, str] = field(default_factory=dict[str, str])
    of_no_matter: bool = False
    waits: bool = False
    form: bool = False


GENERATE = {"type": "generate", "input": {"prompt": "hello"}}
REVIEW = {"type": "review", "document": "{document_id}", "matter": "M-1"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
OWN = b"name: walked\ncategories:\n  - {id: rent, title: Rent, weight: 1, literals: [rent]}\n"
FILE = (
    b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="requests.jsonl"\r\n\r\n{}\n\r\n--B--\r\n'
)
BATCH = {"input_file_id": "{file_id}", "endpoint": "/v1/completions", "completion_window": "24h"}
SCHEDULE = {"name": "weekly", "cron": "0 22 * * 5", "run": {"matter": "M-1", "model": "none"}}

ROUTES: dict[str, Route] = {
    "GET /livez": Route(None),
    "GET /readyz": Route(None),
    "GET /login": Route(None, query={"token": "nothing"}),
    "GET /version": Route("read", of_no_matter=True),
    "GET /": Route("read", of_no_matter=True),
    "GET /docs": Route("read", of_no_matter=True),
    "GET /openapi.json": Route("read", of_no_matter=True),
    "GET /metrics": Route("operator"),
    "GET /flower": Route("operator"),
    "GET /flower/{path}": Route("operator"),
    "POST /flower/{path}": Route("operator"),
    "GET /v1/workers": Route("operator"),
    "PATCH /v1/workers/{kind}": Route("operator", {"min": 1}),
    "GET /v1/lanes": Route("operator"),
    "GET /v1/keys": Route("admin"),
    "POST /v1/keys": Route("admin", {"name": "walked"}),
    "GET /v1/keys/{key_id}": Route("admin"),
    "POST /v1/keys/{key_id}/rotate": Route("admin", {"grace_seconds": 0}),
    "DELETE /v1/keys/{key_id}": Route("admin"),
    "GET /v1/audit": Route("admin"),
    "POST /v1/documents": Route(
        "submit", b"This Agreement.", {"read": "false", "matter": "M-1", "name": "agreement.txt"}
    ),
    "GET /v1/documents": Route("read", of_no_matter=True),
    "GET /v1/documents/{document_id}": Route("read"),
    "GET /v1/documents/{document_id}/text": Route("read"),
    "DELETE /v1/documents/{document_id}": Route("submit"),
    "POST /v1/jobs": Route("submit", REVIEW),
    "GET /v1/jobs": Route("read", of_no_matter=True),
    "GET /v1/jobs/{job_id}": Route("read"),
    "GET /v1/jobs/{job_id}/events": Route("read"),
    "POST /v1/jobs/{job_id}/retry": Route("submit"),
    "DELETE /v1/jobs/{job_id}": Route("submit"),
    "GET /v1/events": Route("read", of_no_matter=True, waits=True),
    "GET /v1/dead-letters": Route("read", of_no_matter=True),
    "POST /v1/dead-letters/{job_id}/replay": Route("submit"),
    "POST /v1/search": Route("submit", {"query": "rent", "documents": ["{document_id}"], "matter": None}),
    "POST /v1/compare": Route("submit", {"before": "{document_id}", "after": "{document_id}"}),
    "POST /v1/duplicates": Route("submit", {"matter": "M-1"}),
    "POST /v1/counts": Route("submit", {"matter": "M-1"}),
    "POST /v1/runs": Route("submit", {"documents": ["{document_id}"], "matter": "M-1", "model": "none"}),
    "GET /v1/runs": Route("read", of_no_matter=True),
    "GET /v1/runs/{run_id}": Route("read"),
    "GET /v1/runs/{run_id}/documents": Route("read"),
    "POST /v1/runs/{run_id}/documents": Route("submit", {"documents": ["{document_id}"]}),
    "POST /v1/runs/{run_id}/seal": Route("submit"),
    "POST /v1/runs/{run_id}/pause": Route("submit"),
    "POST /v1/runs/{run_id}/resume": Route("submit"),
    "POST /v1/runs/{run_id}/retry": Route("submit"),
    "DELETE /v1/runs/{run_id}": Route("submit"),
    "GET /v1/runs/{run_id}/events": Route("read"),
    "GET /v1/runs/{run_id}/results": Route("read"),
    "POST /v1/schedules": Route("submit", SCHEDULE),
    "GET /v1/schedules": Route("read", of_no_matter=True),
    "GET /v1/schedules/{schedule_id}": Route("read"),
    "POST /v1/schedules/{schedule_id}/pause": Route("submit"),
    "POST /v1/schedules/{schedule_id}/resume": Route("submit"),
    "DELETE /v1/schedules/{schedule_id}": Route("submit"),
    "GET /v1/playbooks": Route("read", of_no_matter=True),
    "POST /v1/playbooks": Route("submit", OWN),
    "POST /v1/playbooks/validate": Route("read", OWN, of_no_matter=True),
    "POST /v1/playbooks/test": Route("submit", {"document": "{document_id}", "playbook": "default"}),
    "GET /v1/playbooks/{playbook}": Route("read", of_no_matter=True),
    "GET /v1/playbooks/{playbook}/diff": Route("read", query={"from": "{playbook}"}, of_no_matter=True),
    "DELETE /v1/playbooks/{playbook}": Route("submit"),
    "POST /v1/webhooks": Route("admin", {"url": "http://127.0.0.1:9/hook"}),
    "GET /v1/webhooks": Route("admin"),
    "GET /v1/webhooks/{webhook_id}": Route("admin"),
    "POST /v1/webhooks/{webhook_id}/disable": Route("admin"),
    "POST /v1/webhooks/{webhook_id}/enable": Route("admin"),
    "POST /v1/webhooks/{webhook_id}/rotate": Route("admin", {"grace_seconds": 0}),
    "POST /v1/webhooks/{webhook_id}/test": Route("admin"),
    "GET /v1/webhooks/{webhook_id}/deliveries": Route("admin"),
    "GET /v1/webhooks/{webhook_id}/deliveries/{delivery_id}": Route("admin"),
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay": Route("admin"),
    "DELETE /v1/webhooks/{webhook_id}": Route("admin"),
    "POST /v1/files": Route("submit", FILE, form=True),
    "GET /v1/files": Route("read"),
    "GET /v1/files/{file_id}": Route("read"),
    "GET /v1/files/{file_id}/content": Route("read"),
    "DELETE /v1/files/{file_id}": Route("submit"),
    "POST /v1/batches": Route("submit", BATCH),
    "GET /v1/batches": Route("read"),
    "GET /v1/batches/{batch_id}": Route("read"),
    "POST /v1/batches/{batch_id}/cancel": Route("submit"),
    "GET /v1/models": Route("read", of_no_matter=True),
    "GET /v1/models/{model_id}": Route("read", of_no_matter=True),
    "POST /v1/chat/completions": Route("submit", CHAT, of_no_matter=True, waits=True),
    "POST /v1/completions": Route("submit", {"model": "m", "prompt": "hello"}, of_no_matter=True, waits=True),
    "POST /v1/embeddings": Route("submit", {"model": "e", "input": "hello"}, of_no_matter=True, waits=True),
    # Last, as it takes runs and schedules along.
    "DELETE /v1/matters/{matter}": Route("submit"),
}
