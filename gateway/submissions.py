"""Turns a client's request for a job into a submission: checks every name in it and plans the steps of a review."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from gateway.document_sets import SET_TYPES, set_job
from gateway.matters import visible_document
from gateway.openapi.raises import raises
from gateway.run_schemas import RunRequest
from gateway.schemas import JobRequest
from gateway.state import Gateway
from services.errors import InvalidRequest, NotFound
from services.job_inputs import EmbedInput, GenerateInput, checked_input
from services.jobs import LANE_OF_TYPE, PROMPTS, Device, Job, JobType, Lane, Priority, Step, Submission, check_name
from services.models import CLAUSE_MODEL
from services.playbooks import load_playbook, own_clauses
from services.principal import Principal
from services.sealed_records import owners_of
from services.tokens import tokens_of

# Larger inputs lie in the blob store, so that Redis holds records and not text.
INLINE_BYTES = 16 * 1024
# What workers have is not asked for anew for each of hundreds of submissions a second.
MODELS_SECONDS = 1.0


ANY_WORK: Final = (
    "priority_unknown",
    "priority_forbidden",
    "device_unknown",
    "device_unavailable",
    "matter_forbidden",
    "name_invalid",
    "time_invalid",
    "callback_unknown",
    "callback_disabled",
)
"""Why work of any kind is refused, whatever it is about."""
ANY_MODEL: Final = ("model_unknown", "catalog_damaged")
"""Why work is refused that needs a model."""
ANY_PLAYBOOK: Final = (("playbook_unknown", 422), "blob_missing")
"""Why work is refused that needs a playbook."""

Name = TypeVar("Name", bound=StrEnum)


def choose(kind: type[Name], value: str, what: str) -> Name:
    """The member of a vocabulary that ``value`` names; raises ``InvalidRequest`` code ``<what>_unknown``."""
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise InvalidRequest(f"unknown {what} {value!r}; there are: {known}", code=f"{what}_unknown") from None


@raises(*ANY_WORK, *ANY_MODEL, *ANY_PLAYBOOK, set_job, "type_unknown", "document_required")
def build_submission(
    gateway: Gateway, principal: Principal, request: JobRequest, *, playbook_text: str | None = None
) -> Submission:
    """The job that a request asks for. Queues nothing, but spends the tokens.

    Raises ``InvalidRequest``, ``NotFound``, ``Forbidden`` or ``RateLimited``.

    ``playbook_text`` is the YAML of a playbook that is not stored, which the job carries instead of the request's.
    """
    job_type = choose(JobType, request.type, "type")
    priority, device, matter = _names(principal, request)
    not_before, expires_at = times(request)
    model, plan = None, ()
    if job_type in PROMPTS:
        if request.document is not None:
            raise InvalidRequest(
                f"{job_type} takes `input` (on the command line --input), not a document", code="input_invalid"
            )
        body = checked_input(GenerateInput if job_type is JobType.GENERATE else EmbedInput, request.input)
        model = resolve_model(gateway, job_type.value, request.model)
    elif job_type in SET_TYPES:
        body = set_job(gateway, principal, request, job_type)
        if job_type is JobType.COUNT:
            body["playbook"] = _playbook_version(gateway, principal, request.playbook)
        model = resolve_model(gateway, "embed", request.model) if job_type is JobType.SEARCH else None
    else:
        body, plan, model = _document_job(gateway, principal, request, job_type, device, playbook_text)
    _check_device(gateway, device, [step.lane for step in plan if step.device is device] or [LANE_OF_TYPE[job_type]])
    data = json.dumps(body, ensure_ascii=False).encode()
    inline = len(data) <= INLINE_BYTES
    owners = owners_of(principal.tenant, request.document, matter)
    gateway.rates.spend_tokens(principal, tokens_of(job_type, body, len(data), generates=model is not None))
    return Submission(
        tenant=principal.tenant,
        type=job_type,
        input=body if inline else {"blob": gateway.blobs.put(principal.tenant, "in", data, owners=owners)},
        document=request.document,
        bytes=len(data),
        priority=priority,
        device=device,
        model=model,
        matter=matter,
        metadata=request.metadata,
        callback=_callback(gateway, principal, request, matter),
        plan=plan,
        cost=_cost(gateway, principal, job_type, body),
        not_before=not_before,
        expires_at=expires_at,
        request_hash=request_hash(request, playbook_text or ""),
        external_id=request.external_id,
    )


def tokens_again(gateway: Gateway, job: Job) -> int:
    """What a job costs that is run once more, as it did when it was submitted; nothing where its input is gone."""
    try:
        kept = job.input.get("blob")
        data = gateway.blobs.get(job.tenant, kept) if kept else json.dumps(job.input, ensure_ascii=False).encode()
    except NotFound:
        return 0
    return tokens_of(job.type, json.loads(data), len(data), generates=job.model is not None)


def resolve_model(gateway: Gateway, kind: str, name: str | None) -> str:
    """The name of a model of this kind that a worker has or that is installed; raises code ``model_unknown``."""
    wanted = name or _default_model(gateway, kind)
    found = gateway.models.names(kind, within=MODELS_SECONDS)
    if not found or wanted not in (None, *found):  # it may have come since
        found = gateway.models.names(kind)
    if wanted is None and found:
        wanted = found[0]
    if wanted is None:
        raise InvalidRequest(
            f"no model for {kind} is installed; `casemill models add` installs one", code="model_unknown"
        )
    if wanted not in found:
        raise InvalidRequest(
            f"unknown model {wanted!r} for {kind}; there are: {', '.join(found) or 'none'}",
            code="model_unknown",
        )
    return wanted


def _default_model(gateway: Gateway, kind: str) -> str | None:
    return gateway.settings.default_model if kind == "generate" else gateway.settings.embedding_model


@raises(*ANY_WORK, *ANY_MODEL, *ANY_PLAYBOOK, "type_unknown")
def build_run_work(gateway: Gateway, principal: Principal, request: RunRequest) -> Submission:
    """The job of each document of a run, its input without the document. Raises as :func:`build_submission` does."""
    job_type = choose(JobType, request.type, "type")
    if job_type not in (JobType.REVIEW, JobType.ANALYZE, JobType.EXTRACT):
        raise InvalidRequest("a run goes over documents: its type is review, analyze or extract", code="type_unknown")
    priority, device, matter = _names(principal, request)
    playbook = _playbook_version(gateway, principal, request.playbook)
    plan, model = _plan(gateway, principal, job_type, request.model, device, {"playbook": playbook})
    _check_device(gateway, device, [step.lane for step in plan if step.device is device] or [LANE_OF_TYPE[job_type]])
    return Submission(
        tenant=principal.tenant,
        type=job_type,
        input={"playbook": playbook} | ({"force": True} if request.force else {}),
        priority=priority,
        device=device,
        model=model,
        matter=matter,
        metadata=request.metadata,
        callback=_callback(gateway, principal, request, matter),
        plan=plan,
    )


def _names(principal: Principal, request: JobRequest | RunRequest) -> tuple[Priority, Device, str | None]:
    """Priority and device of a request, and the matter of what it submits, once they are known to be allowed."""
    priority = choose(Priority, request.priority, "priority")
    principal.check_priority(priority)
    if request.matter is not None:
        check_name(request.matter, "matter")
    matter = principal.matter_for(request.matter)
    return priority, choose(Device, request.device, "device"), matter


def _callback(
    gateway: Gateway, principal: Principal, request: JobRequest | RunRequest, matter: str | None
) -> str | None:
    """The webhook that a request names. Raises code ``callback_unknown`` or ``callback_disabled``."""
    if request.callback is None:
        return None
    return gateway.webhooks.callback(principal.tenant, request.callback, matter)


def request_hash(request: BaseModel, text: str = "") -> str:
    """Stands for a request, with a ``text`` beside it, as sent, so that one idempotency key cannot mean two of them."""
    sent = json.dumps(request.model_dump(), default=str)  # pydantic's own JSON stops at a lone surrogate
    return hashlib.sha256((sent + text).encode("utf-8", "surrogatepass")).hexdigest()


def times(request: JobRequest | RunRequest) -> tuple[float | None, float | None]:
    """When a job may start and when it ends as expired, as epoch seconds; raises code ``time_invalid``."""
    not_before, expires_at = epoch(request.not_before), epoch(request.expires_at)
    if not_before is not None and expires_at is not None and expires_at <= not_before:
        raise InvalidRequest("`expires_at` is not after `not_before`: it could never run", code="time_invalid")
    return not_before, expires_at


def epoch(moment: datetime | None) -> float | None:
    """Epoch seconds of a time that a client gives; raises code ``time_invalid`` for one without a zone."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidRequest(f"{moment.isoformat()} has no zone; write e.g. 2030-01-31T08:00:00Z", code="time_invalid")
    return moment.timestamp()


def _document_job(
    gateway: Gateway,
    principal: Principal,
    request: JobRequest,
    job_type: JobType,
    device: Device,
    playbook_text: str | None,
) -> tuple[dict[str, Any], tuple[Step, ...], str | None]:
    if request.document is None:
        raise InvalidRequest(
            f"{job_type} needs `document`; upload it with POST /v1/documents", code="document_required"
        )
    if playbook_text is None:
        playbook = {"playbook": _playbook_version(gateway, principal, request.playbook)}
    else:
        playbook = {"playbook": load_playbook(playbook_text).version, "playbook_text": playbook_text}
    document = visible_document(gateway, principal, request.document)
    body: dict[str, Any] = {"document": document.id, "name": document.name, **playbook}
    return body, *_plan(gateway, principal, job_type, request.model, device, playbook)


def _playbook_version(gateway: Gateway, principal: Principal, name: str) -> str:
    """The version that a job keeps, whatever is uploaded or removed later."""
    try:
        return gateway.playbooks.pin(principal.tenant, name)
    except NotFound as error:
        raise InvalidRequest(error.detail, code=error.code) from None


def _plan(
    gateway: Gateway,
    principal: Principal,
    job_type: JobType,
    model: str | None,
    device: Device,
    playbook: dict[str, str],
) -> tuple[tuple[Step, ...], str | None]:
    """The steps of a job on a document, and the generation model among them, if any."""
    extract = Step("extract", "extract", Lane.EXTRACT)
    scan = Step("scan", "scan", Lane.ANALYZE, device=device)
    sensitive = Step("sensitive", "sensitive", Lane.ANALYZE)
    report = Step("report", "report", Lane.ANALYZE)
    if job_type is JobType.EXTRACT:
        return (), None
    if job_type is JobType.ANALYZE:
        return (extract, scan, sensitive, report), None
    steps = [extract, scan, sensitive]
    embedders = gateway.models.names("embed")
    if CLAUSE_MODEL in embedders:
        steps.append(Step("context", "context", Lane.EMBED, device=device, model=CLAUSE_MODEL))
    chosen = gateway.playbooks.read(principal.tenant, playbook["playbook"], text=playbook.get("playbook_text"))
    # A firm's own clauses are found by nearness to their description.
    if embedders and (own_clauses(chosen) or CLAUSE_MODEL not in embedders):
        embedder = resolve_model(gateway, "embed", None)
        steps.append(Step("embed", "segments", Lane.EMBED, device=device, model=embedder))
    steps.append(Step("clauses", "clauses", Lane.ANALYZE))
    generator = None
    if model != "none" and (model is not None or gateway.models.names("generate")):
        generator = resolve_model(gateway, "generate", model)
        steps.append(Step("terms", "terms", Lane.GENERATE, device=device, model=generator, cost=10.0))
    return (*steps, report), generator


def _check_device(gateway: Gateway, device: Device, lanes: list[Lane]) -> None:
    """Refuse a device class that no live worker of a lane has: such a job would wait for ever."""
    if device is Device.ANY:
        return
    workers = gateway.fleet.workers()
    for lane in lanes:
        if not any(worker.device == device and lane in worker.lanes for worker in workers):
            raise InvalidRequest(
                f"no live worker of the lane {lane} has the device {device}; ask for any, or start one",
                code="device_unavailable",
            )


def _cost(gateway: Gateway, principal: Principal, job_type: JobType, body: dict[str, Any]) -> float:
    """Expected seconds, for fairness between tenants: roughly the length of what is asked."""
    if job_type is JobType.GENERATE:
        return 0.2 + float(body.get("max_tokens") or 256) / 50
    if job_type is JobType.EMBED:
        return 0.05 + 0.01 * len(body["texts"])
    if job_type in (JobType.DUPLICATES, JobType.COUNT):
        listed = body.get("documents")
        count = len(listed) if listed else gateway.documents.in_matter(principal.tenant, body["matter"])
        return 0.1 + 0.02 * count
    return 1.0
