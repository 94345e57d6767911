"""Secrets and signatures of webhooks by Standard Webhooks 1.0: what `workers.tasks.deliver` puts before a message."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

_PREFIX = "whsec_"
# The specification asks for 24 to 64.
_SECRET_BYTES = 32


def new_secret() -> str:
    """A secret as its owner keeps it: ``whsec_`` and base64 of 32 random bytes."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(message: str, timestamp: int, body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """The headers that prove where ``body`` comes from: one signature for each of the secrets that hold now.

    ``message`` is the same at every attempt, ``timestamp`` (seconds since the epoch) that of this one.
    """
    content = f"{message}.{timestamp}.".encode() + body
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{_signature(key, content)}" for key in keys),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
