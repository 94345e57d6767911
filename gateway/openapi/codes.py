"""What each code of a problem means, with its status and an example of what it says: those that the gateway answers.

A route names its own by :func:`gateway.openapi.raises.raises`. ``tests/unit/test_problem_codes.py`` holds this list to
the source: every code that is raised stands here or in :mod:`gateway.openapi.job_codes`, every one here is raised
somewhere, with this status, and its example is what is said there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.openapi.example_ids import EXAMPLE_IDS
from services.webhooks import EVENTS


@dataclass(frozen=True, slots=True)
class Code:
    """One code: its HTTP ``status``, what it ``means`` for the client, and a ``detail`` as an answer has it."""

    status: int
    means: str
    detail: str


_ID = EXAMPLE_IDS

GATEWAY_CODES: Final[dict[str, Code]] = {
    # Who asks
    "unauthorized": Code(
        401,
        "There is no key in the request, or it is not known, was revoked, or its session has ended.",
        "an API key is needed; send it as `Authorization: Bearer cm_…`",
    ),
    "key_expired": Code(
        401,
        "The key's own time is over; an administrator makes another.",
        "this key has expired; ask an admin for another",
    ),
    "key_ended": Code(
        401,
        "In a stream, as its last event: the key was revoked, has expired or has another secret meanwhile.",
        "the key of this stream was revoked, has expired or has another secret",
    ),
    "login_expired": Code(
        401,
        "The one-time log-in link was used, or is older than ten minutes.",
        "this log-in link was used or has expired; `casemill keys login` prints a new one",
    ),
    "forbidden": Code(
        403,
        "The key lacks the scope that the operation needs.",
        "this key lacks the scope 'submit'; ask an admin for one that has it",
    ),
    "matter_forbidden": Code(
        403,
        "The key is for named matters, and the request is about another one or about all.",
        "this key is for named matters, and this is about more than one; use a key without matters",
    ),
    "priority_forbidden": Code(
        403, "The priority is above the key's ceiling.", "this key may ask for high at most, not critical"
    ),
    "cross_origin": Code(
        403,
        "A browser's session goes along with a request that another origin's page may have made.",
        "a browser's session changes nothing for pages of another origin; programs send a key as `Authorization: "
        "Bearer cm_…`",
    ),
    "limits_forbidden": Code(
        403,
        "The key that is to be made or rotated has a rate, a storage or a time beyond those of the key that asks.",
        "a key may not have more than the one that gives it: `expires_at` has to be within this key's own",
    ),
    # What is not there, or not for this key
    "route_unknown": Code(404, "No operation has this path.", "Not Found"),
    "job_unknown": Code(404, "No job of this key's has the id.", f"there is no job '{_ID['job_id']}'"),
    "document_unknown": Code(
        404,
        "No document of this key's has the id; it may have been erased.",
        f"there is no document '{_ID['document_id']}'",
    ),
    "run_unknown": Code(404, "No run of this key's has the id.", f"there is no run '{_ID['run_id']}'"),
    "schedule_unknown": Code(
        404, "No schedule of this key's has the id.", f"there is no schedule '{_ID['schedule_id']}'"
    ),
    "webhook_unknown": Code(404, "No endpoint has the id.", f"there is no webhook '{_ID['webhook_id']}'"),
    "delivery_unknown": Code(
        404, "Nothing with this id was sent to the endpoint.", f"there is no delivery '{_ID['delivery_id']}'"
    ),
    "file_unknown": Code(404, "No file has the id; it may have expired.", f"there is no file '{_ID['file_id']}'"),
    "batch_unknown": Code(404, "No batch has the id.", f"there is no batch '{_ID['batch_id']}'"),
    "key_unknown": Code(
        404, "No key of this tenant has the id.", f"there is no key '{_ID['key_id']}'; `casemill keys list` shows them"
    ),
    "matter_unknown": Code(404, "The matter has nothing that could be meant.", "the matter 'M-2041' has no documents"),
    "model_unknown": Code(
        422,
        "No such model is installed, or none for this kind of work; `/v1/models` lists them.",
        "unknown model 'gpt-4o' for generate; there are: gemma3-270m-q4-k-m",
    ),
    "playbook_unknown": Code(
        404,
        "No playbook has this name, and no version begins with it; `/v1/playbooks` lists them.",
        "unknown playbook 'leases'; there is: default, employment, lease",
    ),
    "after_unknown": Code(404, "`after` is no id of this list.", f"there is no '{_ID['file_id']}' to go on after"),
    "blob_missing": Code(
        404,
        "The content was erased while it was asked for, or is lost.",
        "blob text_3b8f0c is not in the store; was it deleted?",
    ),
    # What the state of a thing does not allow
    "text_missing": Code(
        409,
        "The document was stored and nobody has read it yet.",
        "the document has not been read yet; submit an extract job",
    ),
    "job_is_step": Code(409, "The id is of one step of a job.", "a step cannot be replayed alone; replay its parent"),
    "job_state": Code(
        409,
        "The job waits, runs or has succeeded.",
        "the job is running; only failed, cancelled and expired jobs run again",
    ),
    "run_state": Code(
        409, "The run is in a state that does not allow this.", "the run is succeeded, which does not allow this"
    ),
    "batch_state": Code(409, "The batch has ended, or is about to.", "cannot cancel a batch with status 'completed'"),
    "delivery_state": Code(
        409, "The message is still being sent.", "the delivery is queued; only one that has ended is sent again"
    ),
    "webhook_disabled": Code(409, "The endpoint is disabled.", "the webhook is disabled; enable it first"),
    "webhook_exists": Code(
        409,
        "The URL is registered already.",
        f"the URL is registered as {_ID['webhook_id']}; remove that one first",
    ),
    "webhooks_full": Code(
        409, "The tenant has as many endpoints as it may have.", "there are 20 endpoints already; remove one"
    ),
    "file_in_use": Code(
        409, "A batch still reads the file.", "a batch reads this file; cancel the batch or wait for its end"
    ),
    # Bodies
    "body_unreadable": Code(
        400, "The body is not what its `Content-Type` says.", "There was an error parsing the body"
    ),
    "method_not_allowed": Code(405, "The path has no such method; `Allow` names those it has.", "Method Not Allowed"),
    "request_timeout": Code(408, "The body came too slowly.", "the body came too slowly; send it again"),
    "tokens_exceeded": Code(
        413,
        "The run or batch alone takes more than the rate of the key or tenant gives in a day.",
        "it may take 90000 tokens of a model, and the key may have 14400 waiting in runs and batches, what its rate "
        "gives it in 24 hours; split it, or ask an admin for a higher rate",
    ),
    "payload_too_large": Code(
        413,
        "The body is larger than the gateway takes.",
        "the body is larger than 8388608 bytes; split it or upload it as a document",
    ),
    "document_too_large": Code(
        413, "The document is larger than the limit.", "the document is larger than 104857600 bytes"
    ),
    "file_too_large": Code(413, "The file is larger than the limit.", "the file is larger than 209715200 bytes"),
    "storage_full": Code(
        413,
        "The key, or all keys of its tenant, have stored as many bytes as they may.",
        "this would be more than the key or its tenant may store; delete some of it, or ask an admin for more",
    ),
    "media_type_unsupported": Code(
        415,
        "The body has a `Content-Type` that the operation does not take.",
        "send the body as JSON with `Content-Type: application/json`",
    ),
    # What a request says
    "request_invalid": Code(
        422,
        "Something in the request is missing, unknown or out of range; the detail says where and why.",
        "body.priority: Field required",
    ),
    "name_invalid": Code(
        422,
        "A matter's name has characters that names do not have.",
        "matter 'M 2041' is not a name: use 1 to 64 letters, digits, dots, dashes or underscores",
    ),
    "input_invalid": Code(422, "The `input` does not fit the `type` of the job.", "give either query or queries"),
    "text_invalid": Code(
        422, "A text has characters that no text has.", "the input has a NUL character, which is not text"
    ),
    "type_unknown": Code(
        422,
        "There is no such type of job, or none for runs.",
        "unknown type 'summary'; there are: generate, embed, analyze",
    ),
    "priority_unknown": Code(
        422, "There is no such priority.", "unknown priority 'urgent'; there are: critical, high, normal, low, bulk"
    ),
    "device_unknown": Code(422, "There is no such class of device.", "unknown device 'tpu'; there are: gpu, cpu, any"),
    "state_unknown": Code(
        422,
        "There is no such state.",
        "unknown state 'done'; there are: scheduled, queued, running, waiting, succeeded, failed, cancelled, expired",
    ),
    "missed_unknown": Code(
        422, "There is no such way to treat missed times.", "unknown missed 'never'; there are: once, skip, all"
    ),
    "event_unknown": Code(
        422,
        "There is no such event.",
        f"unknown event 'job.done'; there are: {', '.join(EVENTS)}",
    ),
    "scope_unknown": Code(
        422, "There is no such scope.", "unknown scopes ['write']; there are submit, read, admin, operator"
    ),
    "kind_unknown": Code(
        422, "There is no such kind of worker.", "there is no kind 'tpu'; use gpu, cpu, documents, delivery"
    ),
    "device_unavailable": Code(
        422,
        "No worker that is alive has this device, so the job would wait for ever.",
        "no live worker of the lane generate has the device gpu; ask for any, or start one",
    ),
    "document_required": Code(
        422,
        "The request lacks the document that it is about.",
        "review needs `document`; upload it with POST /v1/documents",
    ),
    "documents_required": Code(422, "Neither documents nor a matter are named.", "name `documents` or a `matter`"),
    "matter_required": Code(422, "A schedule is for a matter.", "the run of a schedule goes over a `matter`"),
    "time_invalid": Code(
        422,
        "A time has no zone, or two times exclude each other.",
        "2030-01-31T08:00:00 has no zone; write e.g. 2030-01-31T08:00:00Z",
    ),
    "time_past": Code(
        422, "The time until which the job had to end is over.", "`expires_at` is over already; nothing was queued"
    ),
    "callback_unknown": Code(
        422,
        "The `callback` is no endpoint that is registered, or it is for another matter.",
        "the callback is no endpoint that is registered for this matter; an administrator registers one with "
        "POST /v1/webhooks",
    ),
    "callback_disabled": Code(
        422,
        "The endpoint that the `callback` names is disabled.",
        f"the callback {_ID['webhook_id']} is disabled: an administrator disabled it; an administrator enables "
        "it again",
    ),
    "idempotency_mismatch": Code(
        422,
        "The `Idempotency-Key` stands for another request, of the last 24 hours.",
        "this Idempotency-Key was used for a different request",
    ),
    "lines_missing": Code(
        422, "The body has no line.", "the body has no line; send one JSON object a line, each a job"
    ),
    "cursor_invalid": Code(
        422,
        "The cursor is not one of this list.",
        "the cursor is not a `next_cursor` of this list; begin without one",
    ),
    "event_id_invalid": Code(422, "The header is no id of an event.", "Last-Event-ID is not an id of this stream"),
    "run_full": Code(
        422, "The run has as many documents as a run takes.", "a run takes 100000 documents at most; make a second run"
    ),
    "schedule_invalid": Code(
        422,
        "The recurrence or its time zone cannot be followed.",
        "cron takes five fields: minute hour day month weekday",
    ),
    "playbook_invalid": Code(
        422,
        "The playbook is not valid YAML, or says something that no playbook says; the detail has the line.",
        "line 3: category `rent` needs a title",
    ),
    "playbook_reserved": Code(
        409,
        "The name belongs to a playbook that comes with Casemill.",
        "`default` is a playbook that comes along; give yours another name",
    ),
    "playbook_ambiguous": Code(422, "Two playbooks are named.", "give `playbook` or `text`, not both"),
    "playbook_version_first": Code(
        422, "There is nothing before the first version.", "there is no version before; name one by `from`"
    ),
    "webhook_url_invalid": Code(
        422,
        "An endpoint cannot have this URL.",
        "an endpoint's address has neither a user nor a #fragment; put a token into its path or query",
    ),
    "webhook_unresolved": Code(
        422,
        "The host of the URL has no address.",
        "the host 'cases.firm.example' does not resolve (gaierror); check the name",
    ),
    "webhook_address_refused": Code(
        422,
        "The host of the URL lies outside the networks that webhooks may go to.",
        "cases.firm.example is at 203.0.113.9, which lies in no network that webhooks may go to; "
        "CASEMILL_WEBHOOK_NETWORKS lists those, and link-local and metadata addresses are never among them",
    ),
    "matters_invalid": Code(
        422,
        "A key for named matters cannot administer.",
        "a key for named matters needs at least one, and has the scopes submit and read alone",
    ),
    "bounds_invalid": Code(
        422,
        "The counts exclude each other, or the machine has no room for them.",
        "5 to 2 workers of kind cpu cannot be: 1 ≤ min ≤ max is needed, and this machine has room for 4",
    ),
    "file_required": Code(422, "The form has no file.", "the form needs a `file`"),
    "purpose_unknown": Code(
        422, "Files are for batches alone.", "the `purpose` of a file is `batch`; others are not supported"
    ),
    "purpose_wrong": Code(
        422, "The file is a batch's output.", f"the purpose of {_ID['file_id']} is batch_output, not batch"
    ),
    # Too much, for now
    "rate_limited": Code(
        429,
        "The key or its tenant has used its requests or tokens of this minute; `Retry-After` says when to come back.",
        "more requests a minute than this key or its tenant may use; try again in 7.5 s",
    ),
    "backlog_full": Code(
        429,
        "As much work waits as may wait at this priority; more urgent work may still be taken.",
        "100000 jobs wait already (generate); try again later",
    ),
    "waiting_full": Code(
        429,
        "As many streams and waiting requests of the tenant are open as may be at one gateway process.",
        "666 streams and waiting requests of this tenant are open; close some, or poll instead",
    ),
    "runs_full": Code(
        429,
        "As many runs and batches of the tenant live as may.",
        "200 runs and batches of this tenant have not ended, as many as may; wait for one's end or cancel one",
    ),
    "tokens_full": Code(
        429,
        "With what waits in runs and batches it would take more than the rate of the key or tenant gives in a day.",
        "it may take 9000 tokens of a model, and the key may have 14400 waiting in runs and batches, where 9000 wait "
        "already; try again when some of them have ended",
    ),
    # Not the client's fault
    "internal": Code(
        500,
        "A bug of the gateway's; its log has the reason under the request's id.",
        "the gateway failed; its log has the traceback",
    ),
    "data_key_damaged": Code(
        500,
        "What is kept of this is sealed by a key that is damaged.",
        "the data key doc_7f3c of the tenant acme cannot be unwrapped by /etc/casemill/master.key",
    ),
    "unavailable": Code(
        503, "Something that the gateway needs is away.", "the events cannot be read; the gateway's log has the reason"
    ),
    "redis_away": Code(503, "The Redis server does not answer.", "Redis does not answer (ConnectionError); try again"),
    "redis_refuses": Code(
        503, "The Redis server takes no writes now.", "Redis refuses writes: MISCONF Errors writing to the AOF file"
    ),
    "storage_unavailable": Code(
        503,
        "The disk takes no more.",
        "the blob store cannot be written (No space left on device); free space or check /var/lib/casemill/blobs",
    ),
    "audit_busy": Code(
        503,
        "Too many acts are being noted at once; nothing was done.",
        "the audit log is written by too many at once; try again",
    ),
    "erasing": Code(
        503, "The document or matter is being erased.", f"{_ID['document_id']} is being erased; try again in a moment"
    ),
    "erasure_goes_on": Code(
        503,
        "The erasure is recorded and will be carried out; it takes longer than the request may.",
        "the erasure is recorded and goes on; look again later",
    ),
    "too_many_followers": Code(
        503, "As many streams are open as the gateway serves.", "too many requests follow events at once; try again"
    ),
    "stream_restarted": Code(
        503,
        "A worker was lost and the text would begin anew.",
        "the worker was lost and the text begins anew; ask again",
    ),
    "stream_broken": Code(503, "A piece of the stream was lost.", "the stream lost a piece of the text; ask again"),
    "flower_away": Code(
        503, "Flower is not running.", "Flower does not answer; `casemill up` starts it, or run `casemill flower`"
    ),
}
