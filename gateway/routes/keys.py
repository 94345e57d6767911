"""``/v1/keys``: an admin makes, lists, rotates and revokes the keys of its tenant; with `operator`, those of any.

Nobody gets a key that may more than the own one, made or rotated: no scope that it lacks, no priority above its
ceiling, no rate, storage or time beyond its limits, no other tenant.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from gateway.keyed_route import KeyedRoute
from gateway.openapi.answers import Answers, answer
from gateway.openapi.raises import raises
from gateway.schemas import MatterName, PriorityName, moment, named
from gateway.state import Admin, Gateway, Shared
from gateway.submissions import choose, epoch
from services.access import GRACE_SECONDS, MAX_GRACE_SECONDS, key_unknown
from services.credentials import holder_of
from services.job_inputs import check_text
from services.jobs import Priority
from services.json_model import JsonModel
from services.principal import SCOPES, Limits, Principal

router = APIRouter(prefix="/v1/keys", tags=["administration"], route_class=KeyedRoute)

Word = Annotated[str, Field(min_length=1, max_length=64)]
ScopeName = Annotated[str, named(SCOPES)]
Count = Annotated[int, Field(ge=1, le=2**50)]


_MADE: Final[Answers] = {
    201: answer("Location", "Cache-Control", description="The key with its secret, which is shown this one time")
}


class KeyRequest(JsonModel):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=100, description="what it is for")
    tenant: str | None = Field(default=None, description="unset: the caller's; another's is for operators")
    scopes: list[ScopeName] = Field(default=["submit", "read"], max_length=4)
    matters: list[MatterName] | None = Field(
        default=None, min_length=1, max_length=1000, description="the only matters that the key sees; unset: all"
    )
    priority_ceiling: PriorityName = Field(default="high", description="the most urgent priority that it may ask for")
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = Field(default=None, description="prompt and answer, reckoned before the job runs")
    stored_bytes: Count | None = Field(default=None, description="documents that it may have stored")
    expires_at: datetime | None = Field(default=None, description="a time that has a zone; unset: never")


class RotateRequest(JsonModel):
    """How long the old secret holds beside the new one."""

    grace_seconds: int = Field(default=GRACE_SECONDS, ge=0, le=MAX_GRACE_SECONDS)


class KeyView(BaseModel):
    """A key without its secret. ``last_used_at`` is exact to a minute."""

    id: str
    name: str
    tenant: str
    scopes: list[ScopeName]
    matters: list[str] | None
    priority_ceiling: PriorityName
    requests_per_minute: int | None
    tokens_per_minute: int | None
    stored_bytes: int | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    rotated_at: datetime | None
    old_secret_until: datetime | None

    @classmethod
    def of(cls, record: dict[str, str]) -> KeyView:
        """The view of a record."""

        def number(name: str) -> int | None:
            return int(record[name]) if record.get(name) else None

        def time(name: str) -> datetime | None:
            return moment(float(record[name])) if record.get(name) else None

        return cls(
            id=record["id"],
            name=record["name"],
            tenant=record["tenant"],
            scopes=record["scopes"].split(),
            matters=record.get("matters", "").split() or None,
            priority_ceiling=record["ceiling"],
            requests_per_minute=number("requests"),
            tokens_per_minute=number("tokens"),
            stored_bytes=number("stored_bytes"),
            created_at=time("created") or datetime.fromtimestamp(0, UTC),
            expires_at=time("expires"),
            last_used_at=time("used"),
            rotated_at=time("rotated"),
            old_secret_until=time("old_until"),
        )


class KeyMade(KeyView):
    """A key with its secret, which is shown this one time."""

    key: str


class KeyList(BaseModel):
    """Keys, oldest first."""

    data: list[KeyView]


@router.get("")
@raises("forbidden")
def list_keys(
    gateway: Shared,
    principal: Admin,
    tenant: Annotated[str | None, Query(description="another's keys, or `*` for all; for operators")] = None,
) -> KeyList:
    """The keys of the tenant, without their secrets."""
    if tenant not in (None, principal.tenant):
        principal.require("operator")
    found = gateway.access.list(None if tenant == "*" else tenant or principal.tenant)
    return KeyList(data=[KeyView.of(record) for record in found])


@router.post("", status_code=201, responses=_MADE)
@raises(
    "text_invalid",
    "name_invalid",
    "priority_unknown",
    "priority_forbidden",
    "scope_unknown",
    "matters_invalid",
    "time_invalid",
    "limits_forbidden",
    "key_unknown",
    "audit_busy",
)
def make_key(body: KeyRequest, response: Response, gateway: Shared, principal: Admin) -> KeyMade:
    """Make a key that may no more than the caller's; the answer has its secret, this one time."""
    check_text(body.name)
    tenant = body.tenant or principal.tenant
    if tenant != principal.tenant:
        principal.require("operator")
    ceiling = choose(Priority, body.priority_ceiling, "priority")
    limits = Limits(body.requests_per_minute, body.tokens_per_minute, body.stored_bytes, epoch(body.expires_at))
    principal.check_grant(Principal("", tenant, frozenset(body.scopes), ceiling, limits=limits))
    secret = gateway.access.create(
        body.name,
        tenant=tenant,
        scopes=body.scopes,
        ceiling=ceiling,
        matters=body.matters,
        limits=limits,
        actor=principal.key_id,
    )
    return _made(gateway, secret, response)


@router.get("/{key_id}")
@raises("key_unknown")
def get_key(key_id: str, gateway: Shared, principal: Admin) -> KeyView:
    """One key, without its secret."""
    return KeyView.of(_find(gateway, principal, key_id))


@router.post("/{key_id}/rotate", status_code=201, responses=_MADE)
@raises("key_unknown", "priority_forbidden", "limits_forbidden", "audit_busy")
def rotate_key(
    key_id: str, gateway: Shared, principal: Admin, response: Response, body: RotateRequest | None = None
) -> KeyMade:
    """Give a key a new secret, which the answer has, this one time; the old one holds for `grace_seconds` more.

    As who has the secret has the key, it is only for keys that may no more than the caller's.
    """
    principal.check_grant(holder_of(_find(gateway, principal, key_id), key_id))
    grace = (body or RotateRequest()).grace_seconds
    secret = gateway.access.rotate(key_id, grace_seconds=grace, actor=principal.key_id)
    return _made(gateway, secret, response)


@router.delete("/{key_id}", status_code=204, response_class=Response)
@raises("key_unknown", "audit_busy")
def revoke_key(key_id: str, gateway: Shared, principal: Admin) -> None:
    """Make a key useless at once, with its sessions; its open streams end within seconds."""
    if "operator" in holder_of(_find(gateway, principal, key_id), key_id).scopes:
        principal.require("operator")
    gateway.access.revoke(key_id, actor=principal.key_id)


def _find(gateway: Gateway, principal: Principal, key_id: str) -> dict[str, str]:
    record = gateway.access.find(key_id)
    if record["tenant"] != principal.tenant and "operator" not in principal.scopes:
        raise key_unknown(key_id)
    return record


def _made(gateway: Gateway, secret: str, response: Response) -> KeyMade:
    record = gateway.access.find(secret.split("_")[1])
    response.headers["Location"] = f"/v1/keys/{record['id']}"
    response.headers["Cache-Control"] = "no-store"
    return KeyMade(**KeyView.of(record).model_dump(), key=secret)
