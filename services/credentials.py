"""What a request shows to be let in, a key or a browser's session, and how the server's verdict on it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.errors import RateLimited, Unauthorized
from services.jobs import Priority
from services.principal import Limits, Principal
from services.rates import limited, rates_of
from services.scripts import pairs


@dataclass(frozen=True, slots=True)
class Credential:
    """A key's whole secret ``cm_<id>_<random>``, or the token of a ``session``."""

    secret: str
    session: bool = False

    def asked(self) -> dict[str, Any] | None:
        """What ``admit.lua`` is asked; ``None`` for what cannot be a key."""
        if self.session:
            return {"session": self.secret}
        prefix, _, rest = self.secret.partition("_")
        key_id, _, random = rest.partition("_")
        if prefix == "cm" and key_id.isalnum() and key_id.isascii() and random:
            return {"id": key_id, "digest": digest(random)}
        return None

    def judged(self, verdict: str, *found: Any) -> Principal | Unauthorized | RateLimited:
        """Who holds it, or why they are not let in, by what the script answers."""
        if verdict in ("unknown", "expired"):
            return self._refusal(verdict)
        return _principal(self.asked() or {}, verdict, *found)

    def _refusal(self, verdict: str) -> Unauthorized:
        if self.session:
            return Unauthorized("the session has ended; `casemill keys login` prints a new log-in link")
        if verdict == "expired":
            return Unauthorized("this key has expired; ask an admin for another", code="key_expired")
        return Unauthorized("the API key is not known; send it as `Authorization: Bearer cm_…`")


def digest(random: str) -> str:
    """How the random part of a secret is kept: 192 random bits need no salt."""
    return hashlib.sha256(random.encode()).hexdigest()


def holder_of(record: Mapping[str, str], key_id: str, **more: Any) -> Principal:
    """Who a key lets in, by its record; ``more`` is what a request adds to it."""
    scopes = frozenset(record["scopes"].split())
    # Before there were operators, an admin was one; records of that time have no field `matters`.
    legacy = "matters" not in record and "admin" in scopes
    rates = (_read(record, name) for name in ("requests", "tokens", "stored_bytes"))
    return Principal(
        key_id=key_id,
        tenant=record["tenant"],
        scopes=scopes | {"operator"} if legacy else scopes,
        ceiling=Priority(record["ceiling"]),
        matters=frozenset(record["matters"].split()) if record.get("matters") else None,
        limits=Limits(*rates, expires=float(record["expires"]) if record.get("expires") else None),
        **more,
    )


def _principal(
    shown: dict[str, Any], verdict: str, key_id: str, flat: list[str], wait: str, told: list[Any]
) -> Principal | RateLimited:
    record = pairs(flat)
    rates = rates_of("requests", _read(record, "requests"), told)
    if verdict == "limited":
        return limited("requests", float(wait), rates)
    return holder_of(record, key_id, shown=shown, rates=rates)


def _read(record: Mapping[str, str], name: str) -> int | None:
    return int(record[name]) if record.get(name) else None
