"""What the API's description says before its operations: keys, problems, safe repetition, lists, streams."""

from __future__ import annotations

from typing import Any, Final

DESCRIPTION: Final = """\
A law firm's documents through local AI: upload documents, submit jobs, fetch results. Results are screening, not
advice.

**Keys.** Send your API key with every request: `Authorization: Bearer cm_…`. Each operation names the scope that the
key needs: `read` looks, `submit` uploads, submits, changes and erases, `admin` administers its own tenant, `operator`
the whole installation. A key can be limited to named matters; what belongs to others does not exist for it.

**Problems.** Every refusal and failure is a problem by RFC 9457 with a `code` that does not change, and a `detail`
for people. `retryable` says whether the same request may succeed later; then `Retry-After` says when. Each operation
lists its codes. A path that no operation has is answered 404 `route_unknown`, a method that it has not 405
`method_not_allowed`, a body larger than the limit 413 `payload_too_large`. A job that fails has its problem in
`problem`.

**Safe repetition.** Send an `Idempotency-Key` where an operation takes one: the same key and body again answer what was
made the first time, for 24 hours, also where it would be refused by then; the same key with another body is refused.
For as long, an erasure that is asked for again is answered as the first was.

**Waiting.** A job is accepted with 202 and its path in `Location`. Ask there, follow its `events`, register a
webhook, or keep the request open with `Prefer: wait=N`.

**Lists** have a `next_cursor` as long as more follows; send it as `cursor`. OpenAI's lists go on `after` an id.

**Streams** are server-sent events. They resume after the `Last-Event-ID` that you send. An event `interrupted`
carries the problem that ended a stream early: `key_ended`, `too_many_followers`, `redis_away` or `unavailable`.

**Ids.** Send an `X-Request-ID` or take the one that is made: it stands in the answer, in the job, and in the workers'
logs.
"""

TAGS: Final[list[dict[str, Any]]] = [
    {"name": "documents", "description": "Upload documents, read their text, erase them with everything derived."},
    {"name": "jobs", "description": "Submit work, look for it, follow it, cancel it, run it again."},
    {"name": "runs", "description": "The same work over thousands of documents, once or on a schedule."},
    {"name": "playbooks", "description": "What a review looks for: a firm's own lists of clauses, terms and rules."},
    {"name": "events", "description": "Everything that happens to the jobs and runs of a tenant, as it happens."},
    {"name": "webhooks", "description": "Endpoints of yours that are told of ends, by Standard Webhooks 1.0."},
    {"name": "openai", "description": "OpenAI's API and Batch API for its own clients, through the same queue."},
    {"name": "administration", "description": "Keys and the audit log."},
    {"name": "system", "description": "Health, versions, metrics, workers."},
]
