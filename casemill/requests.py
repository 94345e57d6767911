"""What can be asked of a job or run, as keyword arguments and as the lines of many jobs at once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Required, TypedDict


class _Options(TypedDict, total=False):
    priority: str
    device: str
    model: str | None
    playbook: str
    matter: str | None
    metadata: Mapping[str, str]
    callback: str | None
    not_before: datetime | None
    expires_at: datetime | None


class JobOptions(_Options, total=False):
    """What a job may be given beside its type; what is left out is the gateway's default.

    Attributes:
        document: id of an uploaded document.
        input: of a job without one, e.g. ``{"prompt": …, "max_tokens": 64}`` or ``{"texts": […]}``.
        priority: ``critical``, ``high``, ``normal``, ``low`` or ``bulk``.
        device: ``gpu``, ``cpu`` or ``any``.
        model: a name from ``/v1/models``; for a review, ``none`` leaves generation out.
        playbook: a name or version from ``/v1/playbooks``.
        matter: the matter that it belongs to, by which it is found and erased.
        external_id: your own name of it, to find it by; it stands in the webhook too.
        metadata: up to 16 texts of yours, which stand in the webhook too; jobs are found by them.
        callback: a webhook, by id or exact URL, that is told of the end.
        not_before: it does not start before this time, which has a zone.
        expires_at: it ends as expired if it has not ended by then.
    """

    document: str | None
    input: Mapping[str, Any]
    external_id: str | None


class JobRequest(JobOptions, total=False):
    """A job of many: its type and options, and ``idempotency_key`` where it shall have one of its own."""

    type: Required[str]
    idempotency_key: str


class RunOptions(_Options, total=False):
    """What a run may be given: ``documents``, or a ``matter`` for all that it holds, and how each is worked on.

    Attributes:
        name: what it is called.
        type: ``review``, ``analyze`` or ``extract``.
        documents: ids of uploaded documents, 10,000 at most; ``runs.add`` takes more.
        open: more documents follow, by ``runs.add``, until ``runs.seal``.
        force: compute again what was done for the same text and versions.

    The others are as in :class:`JobOptions`; ``priority`` is ``bulk`` unless said otherwise.
    """

    name: str
    type: str
    documents: list[str] | None
    open: bool
    force: bool
