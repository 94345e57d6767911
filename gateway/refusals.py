"""Refused access in the audit log: the first of a kind at once, repetitions counted, so that a flood is one line.

A refusal is noted in the log of the tenant whose key was refused, or in the system's where no key was good. The same
again within five minutes is only counted; the next entry of its kind, or the gateway's end, tells how often.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from dataclasses import dataclass, field

from fastapi import Request

from services.audit import SYSTEM, Audit
from services.errors import CasemillError

QUIET_SECONDS = 300.0
# Kinds are bounded by keys × codes, both ours; past this the oldest is told and forgotten.
MAX_KINDS = 1000


@dataclass(slots=True)
class _Kind:
    noted: float
    more: int = 0


@dataclass(slots=True)
class Refusals:
    """Notes refusals. Safe for threads."""

    audit: Audit
    _kinds: dict[tuple[str, str, str], _Kind] = field(default_factory=dict[tuple[str, str, str], _Kind])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, request: Request, error: CasemillError) -> None:
        """Note that a request got 401 or 403; raises ``Unavailable`` when Redis is away."""
        principal = getattr(request.state, "principal", None)
        tenant, actor = (principal.tenant, principal.key_id) if principal else (SYSTEM, "-")
        kind, now = (tenant, actor, error.code), time.monotonic()
        with self._lock:
            known = self._kinds.get(kind)
            if known and now - known.noted < QUIET_SECONDS:
                known.more += 1
                return
            more = known.more if known else 0
            self._kinds.pop(kind, None)
            oldest = next(iter(self._kinds)) if len(self._kinds) >= MAX_KINDS else None
            forgotten = self._kinds.pop(oldest).more if oldest else 0
            self._kinds[kind] = _Kind(now)
        if oldest:
            self._tell(*oldest, forgotten)
        route = request.scope.get("route")
        # The route as it is declared: a path may hold what a person typed.
        where = f"{request.method} {getattr(route, 'path', '')}"
        client = _address(request)
        told = {"more": str(more)} if more else {}
        self.audit.note(tenant, actor, "access.refused", "", code=error.code, route=where, client=client, **told)

    def close(self) -> None:
        """Tell what was only counted."""
        with self._lock:
            left, self._kinds = self._kinds, {}
        for kind, counted in left.items():
            self._tell(*kind, counted.more)

    def _tell(self, tenant: str, actor: str, code: str, more: int) -> None:
        if more:
            self.audit.note(tenant, actor, "access.refused", "", code=code, more=str(more))


def _address(request: Request) -> str:
    """Where a request comes from; nothing where that is no IP address: what a proxy passes on may be anybody's text."""
    try:
        return str(ipaddress.ip_address(request.client.host if request.client else ""))
    except ValueError:
        return ""
