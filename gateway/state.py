"""What the routes of one gateway process share, and who a request acts for."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from services.access import Access, Principal
from services.blobs import Blobs
from services.documents import Documents
from services.errors import Unauthorized
from services.fleet import Fleet
from services.job_index import JobIndex
from services.lifecycle import Lifecycle
from services.models import Catalog
from services.playbook_store import PlaybookStore
from services.runs import Runs
from services.schedules import Schedules
from services.settings import Settings
from services.streams import Streams

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
    blobs: Blobs
    documents: Documents
    playbooks: PlaybookStore
    fleet: Fleet
    catalog: Catalog
    events: Streams


async def gateway_of(request: Request) -> Gateway:
    """The process's shared state."""
    return request.app.state.gateway


def principal_of(request: Request) -> Principal:
    """Who calls: ``Authorization: Bearer <key>``, the key as Basic password, or the session cookie of a log-in link.

    Raises ``Unauthorized``.
    """
    gateway: Gateway = request.app.state.gateway
    access = gateway.access
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return access.check(value.strip())
    if scheme.lower() == "basic":
        try:
            _, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:  # not base64, or not UTF-8
            raise Unauthorized("the Basic credentials are not base64 of user:key") from None
        return access.check(password)
    if session := request.cookies.get(SESSION_COOKIE):
        return access.check_session(session)
    raise Unauthorized("an API key is needed; send it as `Authorization: Bearer cm_…`")


def scoped(scope: str) -> Callable[[Request], Principal]:
    """A dependency that answers the principal and refuses keys without ``scope``."""

    def check(request: Request) -> Principal:
        principal = principal_of(request)
        principal.require(scope)
        return principal

    return check


Shared = Annotated[Gateway, Depends(gateway_of)]
Reader = Annotated[Principal, Depends(scoped("read"))]
Submitter = Annotated[Principal, Depends(scoped("submit"))]
Admin = Annotated[Principal, Depends(scoped("admin"))]
