"""API keys and the sessions of browsers: makes, rotates and revokes keys, and admits each request in one script."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from typing import Any, Final

from services.audit import Audit
from services.credentials import Credential, digest
from services.errors import InvalidRequest, NotFound, Unauthorized
from services.jobs import Priority, check_name
from services.keys import Keys
from services.principal import SCOPES, UNLIMITED, Limits, Principal
from services.redis_client import Redis, redis_errors, server_time
from services.revocations import Revocations
from services.scripts import Scripts

LOGIN_SECONDS: Final = 600
SESSION_SECONDS: Final = 12 * 3600
GRACE_SECONDS: Final = 24 * 3600
MAX_GRACE_SECONDS: Final = 90 * 86400
LOCAL: Final = "local"
"""Who acts in the audit log where no key does: somebody at the machine of the stack."""


class Access:
    """Issues, checks and revokes keys; secrets are kept as SHA-256 only (they are 192 random bits).

    ``tenant`` limits all keys of a tenant together. What is done to keys stands in their tenant's audit log, and what
    is taken from them in ``revocations`` as well.
    """

    def __init__(
        self, client: Redis, keys: Keys, tenant: Limits = UNLIMITED, revocations: Revocations | None = None
    ) -> None:
        self._client = client
        self._keys = keys
        self._tenant: dict[str, Any] = {} if tenant.requests is None else {"tenant_requests": tenant.requests}
        self._audit = Audit(client, keys)
        self._revocations = revocations
        self._scripts = Scripts(client, {"prefix": keys.prefix})

    def create(
        self,
        name: str,
        *,
        tenant: str = "default",
        scopes: Collection[str] = SCOPES,
        ceiling: Priority = Priority.CRITICAL,
        matters: Collection[str] | None = None,
        limits: Limits = UNLIMITED,
        actor: str = LOCAL,
    ) -> str:
        """Make a key; answers the whole secret ``cm_<id>_<random>``, which is shown this one time.

        ``matters`` are the only ones that the key sees; such a key administers nothing. Raises ``InvalidRequest``.
        """
        check_name(tenant, "tenant")
        self._check(scopes, matters, limits)
        key_id, secret = secrets.token_hex(6), secrets.token_hex(24)
        record: dict[str, str] = {
            "name": name,
            "hash": digest(secret),
            "tenant": tenant,
            "scopes": " ".join(scope for scope in SCOPES if scope in scopes),
            "ceiling": ceiling.value,
            "matters": " ".join(sorted(set(matters or ()))),
            "requests": _number(limits.requests),
            "tokens": _number(limits.tokens),
            "stored_bytes": _number(limits.stored_bytes),
            "expires": _number(limits.expires),
            "created": str(server_time(self._client)),
        }
        self._audit.note(tenant, actor, "key.made", key_id, scopes=record["scopes"], matters=record["matters"])
        with redis_errors():
            pipeline = self._client.pipeline()
            pipeline.hset(self._keys("apikey", id=key_id), mapping=record)
            pipeline.sadd(self._keys("apikeys"), key_id)
            pipeline.execute()
        return f"cm_{key_id}_{secret}"

    def list(self, tenant: str | None = None) -> list[dict[str, str]]:
        """The keys of a tenant, or all, oldest first, without their secrets."""
        with redis_errors():
            ids = list(self._client.smembers(self._keys("apikeys")))
            pipeline = self._client.pipeline(transaction=False)
            for key_id in ids:
                pipeline.hgetall(self._keys("apikey", id=key_id))
            records: list[dict[str, str]] = pipeline.execute()
        found = [_shown(key_id, record) for key_id, record in zip(ids, records, strict=True) if record]
        found = [record for record in found if tenant in (None, record["tenant"])]
        return sorted(found, key=lambda record: float(record["created"]))

    def find(self, key_id: str) -> dict[str, str]:
        """One key without its secret; raises ``NotFound``."""
        with redis_errors():
            record = self._client.hgetall(self._keys("apikey", id=key_id))
        if not record:
            raise key_unknown(key_id)
        return _shown(key_id, record)

    def rotate(self, key_id: str, *, grace_seconds: int = GRACE_SECONDS, actor: str = LOCAL) -> str:
        """Give a key a new secret, which is answered this one time; the old one holds for a while. Raises ``NotFound``.

        What else the key is stays as it is: its id, its limits, its sessions.
        """
        if not 0 <= grace_seconds <= MAX_GRACE_SECONDS:
            raise InvalidRequest(f"the grace is 0 to {MAX_GRACE_SECONDS} seconds", code="grace_invalid")
        tenant, secret = self.find(key_id)["tenant"], secrets.token_hex(24)
        self._note_revoked(tenant, key_id)
        self._audit.note(tenant, actor, "key.rotated", key_id, grace_seconds=str(grace_seconds))
        argument = {"id": key_id, "digest": digest(secret), "grace": grace_seconds}
        if not self._scripts.run("key_rotate", argument):
            raise key_unknown(key_id)
        return f"cm_{key_id}_{secret}"

    def revoke(self, key_id: str, *, actor: str = LOCAL) -> None:
        """Make a key and its sessions useless at once; raises ``NotFound``."""
        tenant = self.find(key_id)["tenant"]
        self._note_revoked(tenant, key_id)
        self._audit.note(tenant, actor, "key.revoked", key_id)
        with redis_errors():
            pipeline = self._client.pipeline()
            pipeline.delete(self._keys("apikey", id=key_id))
            pipeline.srem(self._keys("apikeys"), key_id)
            pipeline.execute()

    def check(self, secret: str, *, session: bool = False) -> Principal:
        """Who holds this key or session, as one request of theirs; raises ``Unauthorized`` or ``RateLimited``."""
        principal = self.check_each([Credential(secret, session)])[0]
        if isinstance(principal, Exception):
            raise principal
        return principal

    def check_each(self, credentials: Sequence[Credential]) -> list[Principal | Exception]:
        """As :meth:`check` for each of them, asked together; an error stands in the place of who is not let in."""
        asked = [credential.asked() for credential in credentials]
        answers = iter(self._scripts.run_each("admit", [self._tenant | one for one in asked if one is not None]))
        found = [["unknown"] if one is None else next(answers) for one in asked]
        return [
            answer if isinstance(answer, Exception) else credential.judged(*answer)
            for credential, answer in zip(credentials, found, strict=True)
        ]

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
            record = self._client.hgetall(self._keys("apikey", id=key_id)) if key_id else None
            if not key_id or not record:
                raise Unauthorized(
                    "this log-in link was used or has expired; `casemill keys login` prints a new one",
                    code="login_expired",
                )
            self._audit.note(record["tenant"], key_id, "session.opened", key_id)
            session = secrets.token_urlsafe(24)
            self._client.set(self._keys("session", token=session), key_id, ex=SESSION_SECONDS)
        return session

    def holds(self, principal: Principal) -> bool:
        """Whether the very secret or session that somebody was admitted by is still good."""
        return self._scripts.run("admit", principal.shown | {"peek": True})[0] == "admitted"

    def end_sessions(self) -> None:
        """Let every browser log in again, and no log-in link that was made before."""
        with redis_errors():
            for kind in ("session", "login"):
                for name in list(self._client.scan_iter(self._keys(kind, token="*"))):  # noqa: S106 - all of them
                    self._client.delete(name)

    def _note_revoked(self, tenant: str, key_id: str) -> None:
        if self._revocations:
            self._revocations.note(server_time(self._client), tenant, key_id)

    def _check(self, scopes: Collection[str], matters: Collection[str] | None, limits: Limits) -> None:
        if unknown := set(scopes) - set(SCOPES):
            raise InvalidRequest(
                f"unknown scopes {sorted(unknown)}; there are {', '.join(SCOPES)}",
                code="scope_unknown",
            )
        for matter in matters or ():
            check_name(matter, "matter")
        if matters is not None and (not matters or {"admin", "operator"} & set(scopes)):
            raise InvalidRequest(
                "a key for named matters needs at least one, and has the scopes submit and read alone",
                code="matters_invalid",
            )
        if limits.expires is not None and limits.expires <= server_time(self._client):
            raise InvalidRequest("the key would have expired already", code="time_invalid")


def key_unknown(key_id: str) -> NotFound:
    """The answer where no key has this id, or where it is not for the caller to know."""
    return NotFound(f"there is no key {key_id!r}; `casemill keys list` shows them", code="key_unknown")


def _shown(key_id: str, record: dict[str, str]) -> dict[str, str]:
    hidden = ("hash", "old_hash")
    return {"id": key_id} | {name: value for name, value in record.items() if name not in hidden}


def _number(value: float | None) -> str:
    return "" if value is None else str(value)
