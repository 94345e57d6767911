"""Secrets of tenants, from one random file of the data folder: they name things so that nobody guesses them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from services.durable_files import write_once


class TenantSecrets:
    """Names things for tenants; safe for threads, and for processes that share the folder."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "blob-secret"
        self._known: bytes | None = None

    def keyed(self, tenant: str, data: bytes) -> str:
        """HMAC-SHA256 of bytes under the tenant's secret, in hexadecimal: names them and tells nobody else of them."""
        secret = hmac.digest(self._secret(), tenant.encode(), "sha256")
        return hmac.new(secret, data, hashlib.sha256).hexdigest()

    def _secret(self) -> bytes:
        if self._known is None:  # it never changes, and names several things of each submission
            try:
                self._known = self._file.read_bytes()
            except FileNotFoundError:
                self._known = write_once(self._file, secrets.token_bytes(32))
        return self._known
