"""How much of a tenant may be under way in runs and batches at once, and how the refusal of more reads.

Rates are by the minute and runs and batches work for hours, so their tokens are bounded by what waits: a key has at
most what its rate gives it in a day, the time that a batch has. ``services/lua/run_limits.lua`` counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from services.errors import BacklogFull, PayloadTooLarge
from services.principal import Limits
from services.settings import Settings

WINDOW_MINUTES: Final = 24 * 60
# Nobody knows when the next one ends; a program shall neither hammer nor sleep through it.
RETRY_SECONDS: Final = 60


def token_limits(settings: Settings, key: Limits) -> dict[str, int]:
    """Tokens that may wait of a key with the limits ``key``, and of its tenant, where their rates are bounded."""
    rates = {"key": key.tokens, "tenant": settings.tenant_tokens_per_minute}
    return {whose: rate * WINDOW_MINUTES for whose, rate in rates.items() if rate is not None}


def run_limits(settings: Settings, key: Limits) -> dict[str, int]:
    """The same, and how many runs and batches may live."""
    return {"runs": settings.max_tenant_runs, **token_limits(settings, key)}


def refuse_full(verdict: str, value: Sequence[Any]) -> None:
    """Raise ``BacklogFull`` or ``PayloadTooLarge`` where a script accepted nothing and says ``full``, and why."""
    if verdict != "full":
        return
    whose, (held, limit, tokens) = str(value[0]), (int(number) for number in value[1:])
    if whose == "runs":
        raise BacklogFull(
            f"{held} runs and batches of this tenant have not ended, as many as may; wait for one's end or cancel one",
            code="runs_full",
            retry_after=RETRY_SECONDS,
        )
    asked = f"it may take {tokens} tokens of a model, and the {whose} may have {limit} waiting in runs and batches"
    if tokens > limit:
        raise PayloadTooLarge(
            f"{asked}, what its rate gives it in 24 hours; split it, or ask an admin for a higher rate",
            code="tokens_exceeded",
        )
    raise BacklogFull(
        f"{asked}, where {held} wait already; try again when some of them have ended",
        code="tokens_full",
        retry_after=RETRY_SECONDS,
    )
