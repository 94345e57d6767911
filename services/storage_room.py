"""The room that keys and tenants have for what they store: reserved before bytes are written, held by their record."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from services.errors import PayloadTooLarge
from services.scripts import Scripts


@dataclass(frozen=True, slots=True)
class Storer:
    """The key that stores something, and how many bytes that may have stored."""

    key: str = ""
    limit: int | None = None


def reserve_room(scripts: Scripts, tenant: str, size: int, storer: Storer, tenant_limit: int | None) -> str:
    """Room for bytes that are about to be stored; answers the reservation's name. Raises ``PayloadTooLarge``."""
    reservation = f"{storer.key}|{size}|{secrets.token_hex(8)}"
    limits = {"owner_limit": storer.limit, "tenant_limit": tenant_limit}
    argument: dict[str, Any] = {name: limit for name, limit in limits.items() if limit is not None}
    if not argument:
        return reservation
    argument |= {"tenant": tenant, "owner": storer.key, "bytes": size, "reservation": reservation}
    if scripts.run("storage_reserve", argument) == "full":
        raise PayloadTooLarge(
            "this would be more than the key or its tenant may store; delete some of it, or ask an admin for more",
            code="storage_full",
        )
    return reservation
