"""Rates by the minute: buckets of requests and tokens for each key and each tenant, kept by the server's clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.errors import RateLimited
from services.keys import Keys
from services.principal import Limits, Principal, Rate
from services.redis_client import Redis
from services.scripts import Scripts


class Rates:
    """Spends tokens; requests are spent by the admission itself (``services.access``)."""

    def __init__(self, client: Redis, keys: Keys, tenant: Limits) -> None:
        self._tenant = tenant
        self._scripts = Scripts(client, {"prefix": keys.prefix})

    def bound_tokens(self, principal: Principal) -> bool:
        """Whether a key or its tenant may use so many tokens a minute and no more."""
        return (principal.limits.tokens, self._tenant.tokens) != (None, None)

    def spend_tokens(self, principal: Principal, amount: int) -> None:
        """Spend what a request may take of a model; raises ``RateLimited``, and then nothing is spent."""
        buckets: list[dict[str, Any]] = []
        if principal.limits.tokens is not None:
            buckets.append({"name": f"tokens:key:{principal.key_id}", "limit": principal.limits.tokens})
        if self._tenant.tokens is not None:
            buckets.append({"name": f"tokens:tenant:{principal.tenant}", "limit": self._tenant.tokens})
        if not buckets:
            return
        wait, told = self._scripts.run("spend", {"amount": amount, "buckets": buckets})
        rates = rates_of("tokens", principal.limits.tokens, told)
        # A request of several jobs spends several times; its answer tells where the bucket stands in the end.
        principal.rates[:] = [rate for rate in principal.rates if "tokens" not in rate.name] + rates
        if float(wait) > 0:
            raise limited("tokens", float(wait), principal.rates)


def rates_of(what: str, of_key: int | None, told: Sequence[Sequence[Any]]) -> list[Rate]:
    """The buckets as a script answers them: the key's, if it has a limit of its own, then the tenant's."""
    names = ([what] if of_key is not None else []) + [f"tenant-{what}"]
    return [
        Rate(name, int(limit), int(left), float(reset)) for name, (limit, left, reset) in zip(names, told, strict=False)
    ]


def limited(what: str, wait: float, rates: Sequence[Rate]) -> RateLimited:
    """The refusal of a request whose bucket is empty."""
    return RateLimited(
        f"more {what} a minute than this key or its tenant may use; try again in {wait:.1f} s",
        retry_after=wait,
        rates=tuple(rates),
    )
