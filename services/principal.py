"""Who a request acts for, and what its key allows: scopes, matters, priorities, rates and bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

from services.errors import Forbidden
from services.jobs import Priority

SCOPES: Final = ("submit", "read", "admin", "operator")
"""``admin`` is of one tenant: its keys, its webhooks, its audit log. ``operator`` is of the whole installation: workers
and their counts, Flower, metrics and, together with ``admin``, the keys and logs of all tenants."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a key, or all keys of a tenant together, may use; ``None`` for no limit.

    Requests and tokens are by the minute; ``expires`` is seconds since the epoch.
    """

    requests: int | None = None
    tokens: int | None = None
    stored_bytes: int | None = None
    expires: float | None = None


UNLIMITED: Final = Limits()


@dataclass(frozen=True, slots=True)
class Rate:
    """Where a bucket stands: of ``limit`` a minute there are ``left``; after ``reset`` seconds it is full again."""

    name: str
    limit: int
    left: int
    reset: float


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request acts for.

    ``ceiling`` is the most urgent priority that the key may ask for, ``matters`` are the only ones that it sees
    (``None`` for all). ``shown`` is the secret or session that let it in, as ``admit.lua`` is asked about it. ``rates``
    are the buckets that the request has spent from, for the headers of its answer.
    """

    key_id: str
    tenant: str
    scopes: frozenset[str]
    ceiling: Priority
    matters: frozenset[str] | None = None
    limits: Limits = UNLIMITED
    shown: dict[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)
    rates: list[Rate] = field(default_factory=list[Rate], compare=False)

    def require(self, scope: str) -> None:
        """Raise ``Forbidden`` unless the key has the scope."""
        if scope not in self.scopes:
            raise Forbidden(f"this key lacks the scope {scope!r}; ask an admin for one that has it")

    def check_priority(self, priority: Priority) -> None:
        """Raise ``Forbidden`` when the priority is above the key's ceiling."""
        if priority.rank < self.ceiling.rank:
            raise Forbidden(
                f"this key may ask for {self.ceiling.value} at most, not {priority.value}",
                code="priority_forbidden",
            )

    def check_grant(self, given: Principal) -> None:
        """Raise ``Forbidden`` when another key may more than this one, which has no matters, as keys of admins are."""
        for scope in SCOPES:
            if scope in given.scopes:
                self.require(scope)
        self.check_priority(given.ceiling)
        own, theirs = self.limits, given.limits
        for name, most, wanted in (
            ("requests_per_minute", own.requests, theirs.requests),
            ("tokens_per_minute", own.tokens, theirs.tokens),
            ("stored_bytes", own.stored_bytes, theirs.stored_bytes),
            ("expires_at", own.expires, theirs.expires),
        ):
            if most is not None and (wanted is None or wanted > most):
                raise Forbidden(
                    f"a key may not have more than the one that gives it: `{name}` has to be within this key's own",
                    code="limits_forbidden",
                )

    def sees(self, matter: str | None) -> bool:
        """Whether what belongs to a matter, or to none, is there for this key."""
        return self.matters is None or matter in self.matters

    def matter_for(self, asked: str | None) -> str | None:
        """The matter of what is submitted: the one asked for, or the only one of the key. Raises ``Forbidden``."""
        if self.matters is None or asked in self.matters:
            return asked
        if asked is None and len(self.matters) == 1:
            return next(iter(self.matters))
        raise Forbidden(
            f"this key is for the matters {', '.join(sorted(self.matters))} alone; name one of them as `matter`",
            code="matter_forbidden",
        )

    def idempotency(self, key: str | None) -> str | None:
        """An idempotency key as it is kept: keys for other matters have others, and learn nothing of each other."""
        if key is None or self.matters is None:
            return key
        return f"{hashlib.sha256(' '.join(sorted(self.matters)).encode()).hexdigest()} {key}"
