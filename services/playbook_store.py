"""A firm's own playbooks: versions by name, each kept for good, so that what a job was given stays what it is.

A version is the SHA-256 of a playbook's content. Its YAML is a blob of the tenant; Redis names the latest version of
each playbook. Removing a playbook takes its name away; its versions stay for the jobs, schedules and results that name
them. A playbook that comes along is kept too as soon as a job is given it, as the next release may change it.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from services.blobs import Blobs
from services.errors import Conflict, NotFound
from services.keys import Keys
from services.playbooks import INCLUDED, Playbook, included_playbook, included_text, load_playbook
from services.redis_client import Redis, redis_errors, server_time

_KEPT: Final = 32  # playbooks read, in a process
_VERSION: Final = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of a playbook; ``created`` is epoch seconds, 0 for what comes along, ``blob`` holds its YAML."""

    version: str
    name: str
    title: str
    created: float
    blob: str


class PlaybookStore:
    """Keeps and finds playbooks, per tenant; safe from any thread. Raises ``Unavailable`` when Redis is away."""

    def __init__(self, client: Redis, keys: Keys, blobs: Blobs) -> None:
        self._client = client
        self._keys = keys
        self._blobs = blobs
        self._lock = threading.Lock()
        self._read: OrderedDict[tuple[str, str], Playbook] = OrderedDict()
        self._pinned: set[tuple[str, str]] = set()

    def upload(self, tenant: str, data: bytes) -> tuple[StoredVersion, bool]:
        """Keep a playbook as the latest version of its name; answers it, and whether it was new.

        Content that is there already keeps the text, and the time, of its first upload. Raises ``InvalidRequest`` code
        ``playbook_invalid`` with line and reason, or ``Conflict`` code ``playbook_reserved``.
        """
        playbook = load_playbook(data)
        if playbook.name in INCLUDED:
            raise Conflict(
                f"`{playbook.name}` is a playbook that comes along; give yours another name", code="playbook_reserved"
            )
        new = self._keep(tenant, playbook, data)
        with redis_errors():
            self._client.hset(self._keys("playbooks", tenant=tenant), playbook.name, playbook.version)
        return self._versions(tenant)[playbook.version], new

    def list(self, tenant: str) -> list[StoredVersion]:
        """The latest version of each playbook by name, first those that come along."""
        with redis_errors():
            latest: dict[str, str] = self._client.hgetall(self._keys("playbooks", tenant=tenant))
        versions = self._versions(tenant)
        own = (versions[version] for name, version in sorted(latest.items()) if name not in INCLUDED)
        return [*map(_included, INCLUDED), *own]

    def versions(self, tenant: str, name: str) -> list[StoredVersion]:
        """All versions of a playbook, newest first; raises ``NotFound``."""
        latest = self.find(tenant, name)
        others = [item for item in self._versions(tenant).values() if item.name == latest.name]
        found = {item.version: item for item in [latest, *others]}
        return sorted(found.values(), key=lambda item: -item.created)

    def find(self, tenant: str, reference: str) -> StoredVersion:
        """The latest version of a name, or the version that these first 8 to 64 digits name; raises ``NotFound``.

        Versions of a playbook that was removed are not found.
        """
        included = [_included(name) for name in INCLUDED]
        for item in included:
            if reference in (item.name, item.version):
                return item
        with redis_errors():
            latest: dict[str, str] = self._client.hgetall(self._keys("playbooks", tenant=tenant))
        versions = self._versions(tenant)
        if reference in latest:
            return versions[latest[reference]]
        if _VERSION.fullmatch(reference):
            known = {item.version: item for item in versions.values() if item.name in latest or item.name in INCLUDED}
            known |= {item.version: item for item in included}
            found = [item for version, item in known.items() if version.startswith(reference)]
            if len(found) == 1:
                return found[0]
        names = ", ".join([*INCLUDED, *sorted(latest.keys() - INCLUDED)])
        raise NotFound(f"unknown playbook {reference!r}; there is: {names}", code="playbook_unknown")

    def text(self, tenant: str, stored: StoredVersion) -> str:
        """The YAML of a version as it was uploaded."""
        return self._blobs.get(tenant, stored.blob).decode("utf-8-sig") if stored.blob else included_text(stored.name)

    def pin(self, tenant: str, reference: str) -> str:
        """The version for a job that asks for a playbook; from then on it can be read. Raises ``NotFound``."""
        stored = self.find(tenant, reference)
        if not stored.blob and (tenant, stored.name) not in self._pinned:
            self._keep(tenant, included_playbook(stored.name), included_text(stored.name).encode())
            self._pinned.add((tenant, stored.name))
        return stored.version

    def read(self, tenant: str, version: str, *, text: str | None = None) -> Playbook:
        """The playbook of a version that was pinned, removed or not, or that is not kept and has this ``text``.

        Raises ``NotFound``.
        """
        for name in INCLUDED:
            if version == included_playbook(name).version:
                return included_playbook(name)
        with self._lock:
            if known := self._read.get((tenant, version)):
                self._read.move_to_end((tenant, version))
                return known
        playbook = load_playbook(self._text_of(tenant, version) if text is None else text)
        with self._lock:
            self._read[tenant, version] = playbook
            while len(self._read) > _KEPT:
                self._read.popitem(last=False)
        return playbook

    def _text_of(self, tenant: str, version: str) -> bytes:
        with redis_errors():
            raw = self._client.hget(self._keys("playbook_versions", tenant=tenant), version)
        if raw is None:
            raise NotFound(f"the playbook version {version!r} is not kept here; submit again", code="playbook_unknown")
        return self._blobs.get(tenant, json.loads(raw)["blob"])

    def remove(self, tenant: str, name: str) -> None:
        """Take a playbook's name away; its versions stay for what names them. Raises ``NotFound``."""
        if name in INCLUDED:
            raise Conflict(f"`{name}` comes along and cannot be removed", code="playbook_reserved")
        with redis_errors():
            removed = self._client.hdel(self._keys("playbooks", tenant=tenant), name)
        if not removed:
            raise NotFound(f"there is no playbook {name!r}", code="playbook_unknown")

    def _keep(self, tenant: str, playbook: Playbook, data: bytes) -> bool:
        """Store a version unless it is there; the blob first, so that no record names one that is missing."""
        key = self._keys("playbook_versions", tenant=tenant)
        with redis_errors():
            if self._client.hget(key, playbook.version) is not None:
                return False
        record = {
            "name": playbook.name,
            "title": playbook.title,
            "created": server_time(self._client),
            "blob": self._blobs.put(tenant, "playbook", data),
        }
        with redis_errors():
            return bool(self._client.hsetnx(key, playbook.version, json.dumps(record)))

    def _versions(self, tenant: str) -> dict[str, StoredVersion]:
        with redis_errors():
            raw: dict[str, str] = self._client.hgetall(self._keys("playbook_versions", tenant=tenant))
        return {version: StoredVersion(version=version, **json.loads(record)) for version, record in raw.items()}


def _included(name: str) -> StoredVersion:
    playbook = included_playbook(name)
    return StoredVersion(playbook.version, playbook.name, playbook.title, 0.0, "")
