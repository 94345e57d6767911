"""What the routes of one gateway process share, and who a request acts for.

What a new route has to do: take one of the principals below, and stand with its scope in ``tests/routes.py``, or the
walk over all routes fails. It says by ``@raises`` which problems it answers with, and has a request in
:mod:`gateway.openapi.requests` where its path is not all that there is to say, or the tests of the description fail.

- ``Reader``, ``Submitter``: the tenant's key has the scope. A key for named matters passes only where every parameter
  of the path is one of ``gateway.matters``, and what it names is of the key's matters. A route whose **body** names
  documents reads each by ``visible_document``; what it submits has ``principal.matter_for(…)`` as its matter.
- ``MatterReader``, ``MatterSubmitter``: the same without that check, for routes that look at ``principal.matters``
  themselves (lists filter by it, submissions go through ``matter_for``) or whose answer is of no matter at all.
- ``Admin``: may administer its own tenant. ``Operator``: may look at and steer the whole installation. Neither has
  matters.

Whatever a route reads or changes it names by ``principal.tenant``; what changes something for good is noted in
``gateway.audit`` under ``principal.key_id``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from gateway.external_ids import ExternalIds
from gateway.matters import check_path
from gateway.openapi.raises import raises
from gateway.origin import check_origin
from gateway.together import Together
from gateway.waiting import Waiting
from services.access import Access
from services.audit import Audit
from services.batches import Batches
from services.blobs import Blobs
from services.credentials import Credential
from services.deliveries import Deliveries
from services.documents import Documents
from services.erasure import Erasures
from services.errors import RateLimited, Unauthorized
from services.files import Files
from services.fleet import Fleet
from services.job_index import JobIndex
from services.jobs import Job, Submission
from services.known_models import KnownModels
from services.lifecycle import Lifecycle
from services.models import Catalog
from services.playbook_store import PlaybookStore
from services.principal import Principal
from services.rates import Rates
from services.runs import Runs
from services.schedules import Schedules
from services.settings import Settings
from services.streams import Streams
from services.webhooks import Webhooks

SESSION_COOKIE = "casemill_session"


@dataclass(frozen=True, slots=True)
class Gateway:
    """Stores and connections of one gateway process."""

    settings: Settings
    lifecycle: Lifecycle
    jobs: JobIndex
    runs: Runs
    schedules: Schedules
    access: Access
    admitting: Together[Credential, Principal]
    rates: Rates
    audit: Audit
    blobs: Blobs
    documents: Documents
    erasures: Erasures
    playbooks: PlaybookStore
    webhooks: Webhooks
    deliveries: Deliveries
    fleet: Fleet
    catalog: Catalog
    models: KnownModels
    files: Files
    batches: Batches
    events: Streams
    submitting: Together[Callable[[], Submission | tuple[Job, bool]], tuple[Job, bool]]
    external_ids: ExternalIds
    waiting: Waiting


async def gateway_of(request: Request) -> Gateway:
    """The process's shared state."""
    return request.app.state.gateway


def credential_of(request: Request) -> Credential:
    """``Authorization: Bearer <key>``, the key as Basic password, or the session cookie of a log-in link.

    Raises ``Unauthorized`` where there is none.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return Credential(value.strip())
    if scheme.lower() == "basic":
        try:
            _, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:  # not base64, or not UTF-8
            raise Unauthorized("the Basic credentials are not base64 of user:key") from None
        return Credential(password)
    if session := request.cookies.get(SESSION_COOKIE):
        return Credential(session, session=True)
    raise Unauthorized("an API key is needed; send it as `Authorization: Bearer cm_…`")


@raises(check_origin, "unauthorized", "key_expired", "rate_limited", "redis_away", "redis_refuses", "data_key_damaged")
async def principal_of(request: Request) -> Principal:
    """Who calls, asked once a request; raises ``Unauthorized`` or ``RateLimited``.

    Later in the request it is ``request.state.principal``.
    """
    if known := getattr(request.state, "principal", None):
        return known
    gateway: Gateway = request.app.state.gateway
    credential = credential_of(request)
    if credential.session:
        check_origin(request)
    try:
        principal = await gateway.admitting(credential)
    except RateLimited as error:
        request.state.rates = list(error.rates)
        raise
    request.state.principal, request.state.rates = principal, principal.rates
    return principal


@dataclass(frozen=True, slots=True)
class Scoped:
    """A dependency that answers the principal and refuses keys without ``scope``, or for other matters."""

    scope: str
    of_any_matter: bool = False

    async def __call__(self, request: Request) -> Principal:
        """Who calls; raises ``Unauthorized``, ``RateLimited``, ``Forbidden`` or ``NotFound``."""
        principal = await principal_of(request)
        principal.require(self.scope)
        if principal.matters is not None and not self.of_any_matter:
            await run_in_threadpool(check_path, request.app.state.gateway, principal, request.path_params)
        return principal


Shared = Annotated[Gateway, Depends(gateway_of)]
Reader = Annotated[Principal, Depends(Scoped("read"))]
Submitter = Annotated[Principal, Depends(Scoped("submit"))]
MatterReader = Annotated[Principal, Depends(Scoped("read", of_any_matter=True))]
MatterSubmitter = Annotated[Principal, Depends(Scoped("submit", of_any_matter=True))]
Admin = Annotated[Principal, Depends(Scoped("admin"))]
Operator = Annotated[Principal, Depends(Scoped("operator"))]
