"""The headers of requests that several routes read, each described once."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header

from services.jobs import Priority

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=255,
        description="makes the request safe to repeat for 24 hours: the same key and body answer what was made the "
        "first time, another body is refused",
    ),
]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        description="the last event that was seen; what came after it follows",
        json_schema_extra={"pattern": r"^([0-9]{1,20}(-[0-9]{1,20})?)?$"},
    ),
]
Urgency = Annotated[
    str | None,
    Header(
        alias="X-Casemill-Priority",
        description="how urgent it is; high if unset, or what `service_tier` says",
        json_schema_extra={"enum": [priority.value for priority in Priority]},
    ),
]
