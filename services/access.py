"""API keys and the sessions of browsers: who calls, for which tenant, with which scopes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Final

from services.errors import Forbidden, InvalidRequest, NotFound, Unauthorized
from services.jobs import Priority, check_name
from services.keys import Keys
from services.redis_client import Redis, redis_errors

SCOPES: Final = ("submit", "read", "admin")
LOGIN_SECONDS: Final = 600
SESSION_SECONDS: Final = 12 * 3600


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request acts for. ``ceiling`` is the most urgent priority that the key may ask for."""

    key_id: str
    tenant: str
    scopes: frozenset[str]
    ceiling: Priority

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


class Access:
    """Issues, checks and revokes keys; secrets are kept as SHA-256 only (they are 192 random bits)."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def create(
        self,
        name: str,
        *,
        tenant: str = "default",
        scopes: tuple[str, ...] = SCOPES,
        ceiling: Priority = Priority.CRITICAL,
    ) -> str:
        """Make a key; answers the whole secret ``cm_<id>_<random>``, which is shown this one time."""
        check_name(tenant, "tenant")
        if unknown := set(scopes) - set(SCOPES):
            raise InvalidRequest(
                f"unknown scopes {sorted(unknown)}; there are {', '.join(SCOPES)}",
                code="scope_unknown",
            )
        key_id, secret = secrets.token_hex(6), secrets.token_hex(24)
        record = {
            "name": name,
            "hash": _digest(secret),
            "tenant": tenant,
            "scopes": " ".join(scopes),
            "ceiling": ceiling.value,
            "created": str(time.time()),
        }
        with redis_errors():
            pipeline = self._client.pipeline()
            pipeline.hset(self._keys("apikey", id=key_id), mapping=record)
            pipeline.sadd(self._keys("apikeys"), key_id)
            pipeline.execute()
        return f"cm_{key_id}_{secret}"

    def list(self) -> list[dict[str, str]]:
        """All keys without their secrets."""
        with redis_errors():
            ids = sorted(self._client.smembers(self._keys("apikeys")))
            records = [(key_id, self._client.hgetall(self._keys("apikey", id=key_id))) for key_id in ids]
        return [
            {
                "id": key_id,
                **{name: value for name, value in record.items() if name != "hash"},
            }
            for key_id, record in records
            if record
        ]

    def revoke(self, key_id: str) -> None:
        """Make a key useless at once; raises ``NotFound``."""
        with redis_errors():
            removed = self._client.delete(self._keys("apikey", id=key_id))
            self._client.srem(self._keys("apikeys"), key_id)
        if not removed:
            raise NotFound(
                f"there is no key {key_id!r}; `casemill keys list` shows them",
                code="key_unknown",
            )

    def check(self, secret: str) -> Principal:
        """Who holds this secret; raises ``Unauthorized``."""
        prefix, _, rest = secret.partition("_")
        key_id, _, random = rest.partition("_")
        if prefix == "cm" and key_id.isalnum() and random:
            record = self._record(key_id)
            if record and hmac.compare_digest(record["hash"], _digest(random)):
                return _principal(key_id, record)
        raise Unauthorized("the API key is not known; send it as `Authorization: Bearer cm_…`")

    def start_login(self, key_id: str) -> str:
        """A token that opens one browser session within ten minutes, for the link that `casemill up` prints."""
        token = secrets.token_urlsafe(24)
        with redis_errors():
            self._client.set(self._keys("login", token=token), key_id, ex=LOGIN_SECONDS)
        return token

    def open_session(self, login: str) -> str:
        """Turn a login token into a session token; works once. Raises ``Unauthorized``."""
        with redis_errors():
            key_id = self._client.getdel(self._keys("login", token=login))
            if not key_id:
                raise Unauthorized(
                    "this log-in link was used or has expired; `casemill keys login` prints a new one",
                    code="login_expired",
                )
            session = secrets.token_urlsafe(24)
            self._client.set(self._keys("session", token=session), key_id, ex=SESSION_SECONDS)
        return session

    def check_session(self, session: str) -> Principal:
        """Who a session acts for; raises ``Unauthorized`` when it ended or its key was revoked."""
        with redis_errors():
            key_id = self._client.get(self._keys("session", token=session))
        record = self._record(key_id) if key_id else None
        if not key_id or not record:
            raise Unauthorized("the session has ended; `casemill keys login` prints a new log-in link")
        return _principal(key_id, record)

    def _record(self, key_id: str) -> dict[str, str]:
        with redis_errors():
            return self._client.hgetall(self._keys("apikey", id=key_id))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _principal(key_id: str, record: dict[str, str]) -> Principal:
    return Principal(
        key_id=key_id,
        tenant=record["tenant"],
        scopes=frozenset(record["scopes"].split()),
        ceiling=Priority(record["ceiling"]),
    )
