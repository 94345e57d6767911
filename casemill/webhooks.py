"""Verifies that a webhook comes from Casemill, by Standard Webhooks 1.0."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterable
from typing import Any, Protocol, TypedDict

TOLERANCE_SECONDS = 300.0


class Headers(Protocol):
    """Headers as any server has them."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Each by its name and value."""
        ...


class Message(TypedDict):
    """What a webhook says.

    ``type`` is ``job.succeeded``, ``job.failed``, ``job.cancelled``, ``job.expired``, ``run.finished`` or
    ``webhook.test``; ``data`` has the ``id`` of the job or run, its ``state``, ``external_id``, ``metadata`` and more.
    Of a batch it is ``batch.completed``, ``batch.failed``, ``batch.expired`` or ``batch.cancelled``, as OpenAI has it.
    """

    type: str
    timestamp: str
    data: dict[str, Any]


class VerificationError(ValueError):
    """The message is not from Casemill, was changed on the way, or is too old: answer 400."""


def verify(secret: str, headers: Headers, body: bytes | str, *, tolerance: float = TOLERANCE_SECONDS) -> Message:
    """What a webhook says, once it is known to come from Casemill. Raises ``VerificationError``.

    Args:
        secret: ``whsec_…``, as it was shown when the endpoint was registered; plain ``ValueError`` for what is none.
        headers: those of the request; the case of their names does not matter.
        body: the body exactly as it came, before anything has parsed it.
        tolerance: seconds that the message may be old, or the clocks may differ.

    While a secret is being replaced, messages are signed by both, and either is good. A message can come twice: take
    each ``webhook-id`` once.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message, moment, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        sent = int(moment)
    except (KeyError, ValueError):
        raise VerificationError("the headers of a webhook are missing or malformed") from None
    raw = body.encode() if isinstance(body, str) else body
    expected = b"v1," + _signature(secret, f"{message}.{moment}.".encode() + raw)
    if not any(hmac.compare_digest(expected, signature.encode()) for signature in signatures.split()):
        raise VerificationError("the signature is not of this secret; the message was not sent by Casemill")
    if abs(time.time() - sent) > tolerance:
        raise VerificationError(f"the message is not of the last {tolerance:.0f} seconds")
    return json.loads(raw)


def _signature(secret: str, content: bytes) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not key:  # by which anybody could sign
        raise ValueError("the secret is not that of a webhook, whsec_…, as it was shown when it was registered")
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest())
