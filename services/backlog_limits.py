"""How full a backlog may get for work of each priority, and when who was refused shall come back."""

from __future__ import annotations

from typing import Any, Final

from services.jobs import Priority
from services.settings import Settings

# Of each limit, in per cent: the least urgent is shed first, and a lane full of it still takes what is urgent.
SHARES: Final = {
    Priority.CRITICAL: 100,
    Priority.HIGH: 95,
    Priority.NORMAL: 90,
    Priority.LOW: 80,
    Priority.BULK: 70,
}
# About so much of the limit shall be free before those who were refused come back, so that not all come for one place.
ROOM = 0.01
UNMEASURED_SECONDS = 1.0
MOST_SECONDS = 600


def backlog_limits(settings: Settings) -> dict[str, Any]:
    """Limits and shares as the script that accepts jobs reads them."""
    limits = {
        "lane": settings.max_backlog,
        "tenant": settings.max_tenant_backlog,
        "bytes": settings.max_tenant_backlog_bytes,
    }
    return {"limits": limits, "shares": SHARES}


def seconds_to_room(over: int, limit: int, took: float | None, slots: int) -> int:
    """Seconds until a backlog that has ``over`` jobs too many has room again.

    ``took`` is the lane's measured seconds of a job, ``None`` before any has ended; ``slots`` are the live ones.
    """
    jobs = over + limit * ROOM
    seconds = jobs * (UNMEASURED_SECONDS if took is None else took) / max(1, slots)
    return max(1, min(MOST_SECONDS, round(seconds)))
