"""The audit log: who did what, a chain of hashes per tenant, to which every part adds and which none can change.

An entry is JSON ``{number, at, tenant, actor, action, subject, details, previous}``, and its hash is the SHA-256 of
that very text, which holds the hash before it: who changes, removes or slips in an entry breaks every hash from there
on. Lua has no SHA-256, and SHA-1 can be made to collide, so the hash is computed here and a script appends the entry
only if the log still ends with ``previous``; otherwise it answers the new end and the entry is chained anew. Whoever
can write to the server could make a whole chain anew: a hash that was written down elsewhere (``anchor``) shows that.
Entries that are old enough may be taken out by an entry that says so (``services.audit_archive``).

The log holds ids, never a text, a name of a file or a matter's description. What destroys something is noted before it
is done, what makes something as soon as its id is known, so that an act that stands nowhere in the log did not succeed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from services.errors import Unavailable
from services.keys import Keys
from services.paging import Page, Place, read_cursor, write_cursor
from services.redis_client import Redis, redis_errors
from services.scripts import Scripts

SYSTEM: Final = "_system"
"""The log of what concerns no tenant, or none that is known. No tenant can have this name."""
PAGE: Final = 500
TRIMMED: Final = "audit.trimmed"
"""The action of an entry that says up to which number and hash the entries before it were taken out."""
# Each round, one of those who write at once gets its entry in.
_ROUNDS: Final = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; ``number`` counts from 1, ``text`` is the JSON that ``hash`` is of, ``at`` seconds since the epoch."""

    number: int
    text: str
    hash: str

    @property
    def fields(self) -> dict[str, Any]:
        """What the text says, with the hash: one line of an export. A text that is no JSON object is under ``text``."""
        try:
            said: dict[str, Any] = dict(json.loads(self.text))
        except (ValueError, TypeError):
            said = {"number": self.number, "text": self.text}
        return said | {"hash": self.hash}


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain is broken: the number of the first entry that does not fit, and why."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What :meth:`Audit.verify` found: the number of the last entry and its hash, and the first break, if any.

    ``first`` is the number of the first entry, 1 unless those before it were taken out and their files are elsewhere.
    """

    entries: int
    head: str
    broken: Break | None
    first: int


Exported = Callable[[str, str], Sequence[Entry]]


class Audit:
    """Writes, reads and verifies the logs. Safe for threads; raises ``Unavailable`` when Redis is away."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client, {"prefix": keys.prefix})

    def note(self, tenant: str, actor: str, action: str, subject: str, **details: str) -> None:
        """Add an entry: ``actor`` is a key's id, ``action`` a word pair (``document.erased``), ``subject`` an id.

        Durable on return, as far as the server is.
        """
        self._add(tenant, {"actor": actor, "action": action, "subject": subject, "details": details})

    def trim(self, tenant: str, actor: str, last: Entry) -> None:
        """Take the entries up to ``last`` out of a log, at the very moment at which an entry is added that says so."""
        details = {"through": str(last.number), "hash": last.hash}
        said = {"actor": actor, "action": TRIMMED, "subject": tenant, "details": details}
        self._add(tenant, said, trim=last.number)

    def _add(self, tenant: str, said: dict[str, Any], **more: int) -> None:
        last = self._scripts.run("audit", {"tenant": tenant})
        for _ in range(_ROUNDS):
            _, number, previous, at = last
            entry = {"number": number + 1, "at": float(at), "tenant": tenant, "previous": previous} | said
            text = json.dumps(entry, sort_keys=True)
            digest = _digest(text)
            argument = {"tenant": tenant, "after": previous, "entry": text, "hash": digest} | more
            last = self._scripts.run("audit", argument)
            if last[0] == "noted" or last[2] == digest:  # the latter: the answer was lost and the client asked again
                return
        raise Unavailable("the audit log is written by too many at once; try again", code="audit_busy")

    def entries(self, tenant: str, *, after: int = 0, limit: int = PAGE) -> list[Entry]:
        """The entries behind the number ``after``, oldest first, at most ``limit``."""
        with redis_errors():
            rows = self._client.xrange(self._keys("audit", tenant=tenant), f"{after + 1}-0", "+", count=limit)
        return [Entry(int(row.partition("-")[0]), fields["entry"], fields["hash"]) for row, fields in rows]

    def page(self, tenant: str, *, cursor: str | None, limit: int) -> Page[Entry]:
        """One page of the entries, oldest first. Raises code ``cursor_invalid``."""
        after = read_cursor("audit", cursor)
        found = self.entries(tenant, after=max(0, int(after.score)) if after else 0, limit=limit + 1)
        following = Place(found[limit - 1].number, "-") if len(found) > limit else None
        return Page(found[:limit], write_cursor("audit", following) if following else None)

    def all(self, tenant: str) -> Iterator[Entry]:
        """Every entry, oldest first, read page by page."""
        after = 0
        while page := self.entries(tenant, after=after):
            yield from page
            after = page[-1].number

    def tenants(self) -> list[str]:
        """Whose logs there are."""
        pattern = self._keys("audit", tenant="*")
        with redis_errors():
            return sorted(name.removeprefix(pattern[:-1]) for name in self._client.scan_iter(pattern))

    def verify(self, tenant: str, *, anchor: str | None = None, exported: Exported | None = None) -> Verdict:
        """Compute the chain again; ``anchor`` is the hash of an entry that the chain must have.

        ``exported`` answers the entries that were taken out before the one whose ``previous`` is a hash.
        """
        while True:
            oldest = self.entries(tenant, limit=1)
            verdict = self._verify(tenant, oldest, anchor, exported)
            # While entries are taken out, those that were about to be read are missing.
            if verdict.broken is None or self.entries(tenant, limit=1) == oldest:
                return verdict

    def _verify(self, tenant: str, oldest: list[Entry], anchor: str | None, exported: Exported | None) -> Verdict:
        chain, found = Chain(), anchor in (None, "")
        before = exported(tenant, str(oldest[0].fields.get("previous"))) if exported and oldest else ()
        for entry in itertools.chain(before, self.all(tenant)):
            chain.take(entry)
            found = found or chain.head == anchor
        broken = chain.broken or chain.unproven()
        if not found and broken is None:
            broken = Break(
                chain.number + 1,
                "no entry has the hash that was written down: the chain was cut or made anew, "
                "or the entry was taken out and its file is not there",
            )
        return Verdict(chain.number, chain.head, broken, chain.first)


class Chain:
    """Follows entries in their order and remembers where they break first."""

    def __init__(self) -> None:
        self.number, self.first = 0, 1
        self.head = self._before = ""
        self.broken: Break | None = None
        self._taken_out: set[tuple[str, str]] = set()

    def take(self, entry: Entry) -> None:
        """Look at the next entry. The first may have any number: ``unproven`` says whether that is right."""
        said = entry.fields
        if self.number == 0:
            self.first, self.number = entry.number, entry.number - 1
            self._before = self.head = str(said.get("previous"))
        self.broken = self.broken or self._check(entry, said)
        told = said.get("details")
        if said.get("action") == TRIMMED and isinstance(told, dict):
            details = cast(dict[str, str], told)
            self._taken_out.add((str(details.get("through")), str(details.get("hash"))))
        self.number, self.head = entry.number, entry.hash

    def unproven(self) -> Break | None:
        """Where entries are missing before the first, unless an entry behind it says that they were taken out."""
        if self._before == "" or (str(self.first - 1), self._before) in self._taken_out:
            return None
        return Break(1, f"the entries before {self.first} are missing, and no entry says that they were taken out")

    def _check(self, entry: Entry, said: dict[str, Any]) -> Break | None:
        """Why an entry does not follow the one before it."""
        number = self.number + 1
        if entry.number != number:
            return Break(number, "the entry is missing")
        if _digest(entry.text) != entry.hash:
            return Break(number, "the entry is not what its hash is of")
        if said.get("previous") != self.head or said.get("number") != number:
            return Break(number, "the entry does not follow the one before it")
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
