"""Erasure of a document or a matter with all that was derived from it: recorded first, then carried out, then proved.

The record takes away the documents' own records in the same script, so that from then on nothing can be kept under
them and nothing begins on them. Each step that follows is safe to repeat; what a crash interrupts, the caretaker
carries on. At the end the server rewrites its append-only file, live workers have dropped what they kept in memory, and
the audit log gets what was removed, in numbers.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.audit import Audit
from services.backup_places import BackupPlaces
from services.data_keys import matter_owner
from services.documents import Documents
from services.erasure_log import ErasureLog
from services.errors import NotFound, Unavailable, or_error, unknown
from services.fleet import Fleet
from services.lifecycle import Lifecycle
from services.redis_client import redis_errors
from services.rewriting import Rewriting
from services.schedules import Schedules

log = logging.getLogger(__name__)

LOCK_MILLISECONDS: Final = 15_000
WAIT_SECONDS: Final = 30.0
# A repeat is known for as long as an idempotency key is.
KNOWN_SECONDS: Final = 86_400
# Entries a call of a script: it must not hold up the server for longer than a few milliseconds.
_CHUNK: Final = 200
MATTER: Final = "matter:"
ERASURES: Final = "erasures"
"""Counter of the erasures carried out; workers that keep texts in memory drop them when it moves, and say so."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is to be erased: ``subject`` is a document, or ``matter:`` and the name of a matter."""

    tenant: str
    subject: str
    entry: dict[str, Any]

    @property
    def matter(self) -> str | None:
        """The matter, if it is one."""
        return self.subject.removeprefix(MATTER) if self.subject.startswith(MATTER) else None

    @property
    def is_open(self) -> bool:
        """Whether it is still to be carried out; after that its proof is."""
        return self.entry["stage"] == "open"

    @property
    def member(self) -> str:
        """The field under which it is recorded."""
        return f"{self.tenant}|{self.subject}"


class Erasures:
    """Records and carries out erasures. Safe for threads; every method raises ``Unavailable`` when Redis is away."""

    def __init__(self, lifecycle: Lifecycle, documents: Documents) -> None:
        self._lifecycle = lifecycle
        self._client = lifecycle.client
        self._keys = lifecycle.keys
        self._scripts = lifecycle.scripts
        self._documents = documents
        self._schedules = Schedules(lifecycle)
        self._audit = Audit(lifecycle.client, lifecycle.keys)
        self._log = ErasureLog(lifecycle.settings.data_dir)
        self._backups = BackupPlaces(lifecycle.settings.data_dir)
        self._rewriting = Rewriting(lifecycle.client)
        self._fleet = Fleet(lifecycle.client, lifecycle.keys)
        self._me = secrets.token_hex(8)

    def document(self, tenant: str, document: str, *, actor: str) -> dict[str, int]:
        """Erase a document; answers what was removed, in numbers. Raises ``NotFound``.

        A repeat is answered as the first was: once it is carried out, and for a day from then on.
        """
        try:
            self._documents.get(tenant, document)
        except NotFound:
            return self._repeated(tenant, document)
        return self._erase(tenant, document, actor=actor)

    def matter(self, tenant: str, matter: str, *, actor: str) -> dict[str, int]:
        """Erase all documents, jobs, runs and schedules of a matter; answers what was removed, in numbers.

        A repeat that finds nothing more is answered as the first was, for a day.
        """
        return self._erase(tenant, MATTER + matter, actor=actor)

    def matter_of(self, tenant: str, document: str) -> str | None:
        """The matter of a document that is being erased or was, within a day; raises ``NotFound``."""
        under_way = self._find(tenant, document)
        known = under_way.entry if under_way else self._erased(tenant, document)
        if known is None:
            raise unknown("document", document)
        return known.get("matter") or None

    def _erase(self, tenant: str, subject: str, *, actor: str) -> dict[str, int]:
        self._audit.note(tenant, actor, "erasure.begun", subject)
        argument = {"tenant": tenant, "subject": subject, "actor": actor}
        if subject.startswith(MATTER):
            argument["matter"] = subject.removeprefix(MATTER)
        verdict, *under_way = self._scripts.run("erase_begin", argument)
        if verdict == "missing":
            return self._repeated(tenant, subject)
        return self._carried_out(tenant, under_way[0])

    def _repeated(self, tenant: str, document: str) -> dict[str, int]:
        """What the erasure removes, or has removed, that took the record of a document; raises ``NotFound``."""
        with redis_errors():
            subject = self._client.hget(self._keys("erasing", tenant=tenant), document)
        if subject:
            return self._carried_out(tenant, subject)
        known = self._erased(tenant, document)
        if known is None:
            raise unknown("document", document)
        return known["counts"]

    def _carried_out(self, tenant: str, subject: str) -> dict[str, int]:
        """What a recorded erasure removed, once it is carried out by us or by somebody else.

        Where that is nothing, what the last one removed of the same within a day.
        """
        until = time.monotonic() + WAIT_SECONDS
        while (erasure := self._find(tenant, subject)) and erasure.is_open:
            if self._try_to_carry_out(erasure):
                break
            if time.monotonic() > until:
                raise Unavailable("the erasure is recorded and goes on; look again later", code="erasure_goes_on")
            time.sleep(0.05)
        known = self._erased(tenant, subject)
        return known["counts"] if known else {}

    def _erased(self, tenant: str, subject: str) -> dict[str, Any] | None:
        """The last erasure of this that removed anything, if it was carried out within a day: matter and counts."""
        with redis_errors():
            text = self._client.get(self._keys("erased", tenant=tenant, subject=subject))
        return json.loads(text) if text else None

    def carry_on(self) -> int:
        """The caretaker's part: carry out what is recorded, prove what is gone; answers how many were carried out.

        Raises what the first of them failed by, once all have had their turn.
        """
        erasures = self.pending()
        answers = [or_error(self._try_to_carry_out, erasure) for erasure in erasures if erasure.is_open]
        answers += self._prove([erasure for erasure in erasures if not erasure.is_open])
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return sum(answer is True for answer in answers)

    def pending(self) -> list[Erasure]:
        """Erasures of which something may be left."""
        with redis_errors():
            return [_erasure(*row) for row in self._client.hgetall(self._keys("erasures")).items()]

    def _find(self, tenant: str, subject: str) -> Erasure | None:
        with redis_errors():
            text = self._client.hget(self._keys("erasures"), f"{tenant}|{subject}")
        return _erasure(f"{tenant}|{subject}", text) if text else None

    def _try_to_carry_out(self, erasure: Erasure) -> bool:
        """Whether we have carried it out; ``False`` where somebody else does so now, or has just done so."""
        if not self._holds_lock(erasure):
            return False
        try:
            now = self._find(erasure.tenant, erasure.subject)
            if now is None or not now.is_open:
                return False
            self._carry_out(now)
            return True
        finally:
            with redis_errors():
                self._client.delete(self._lock(erasure))

    def _carry_out(self, erasure: Erasure) -> None:
        tenant, matter = erasure.tenant, erasure.matter
        with redis_errors():
            erasing: dict[str, str] = self._client.hgetall(self._keys("erasing", tenant=tenant))
        mine = [name for name, subject in erasing.items() if subject == erasure.subject]
        documents = [name for name in mine if not name.startswith(MATTER)]
        self._log.add(float(erasure.entry["at"]), tenant, mine)
        counts: Counter[str] = Counter(erasure.entry["counts"])
        counts["jobs"] += self._erase_jobs(erasure, documents)
        counts["jobs"] += self._erase_runs(erasure, documents)
        if matter:
            counts["schedules"] += self._remove_schedules(tenant, matter)
        self._save(erasure, counts)
        counts["blobs"] += self._documents.forget(tenant, documents)
        owners = [*documents, *([matter_owner(tenant, matter)] if matter else [])]
        seals = self._documents.blobs.seals
        if matter and seals.keys:
            seals.keys.destroy(tenant, owners[-1])
        self._backups.erase(float(erasure.entry["at"]), tenant, mine, owners)
        counts["blobs"] += self._documents.blobs.erase(tenant, owners)
        with redis_errors():
            before: dict[str, int] = erasure.entry.get("before", {})
            removed = {name: count - before.get(name, 0) for name, count in counts.items()}
            # Also where no record was left: a worker's memory can hold a prompt for longer than its job is known.
            number = self._client.hincrby(self._keys("counters"), ERASURES, 1)
            pipeline = self._client.pipeline()
            if mine:  # none where a process died that held the lock for too long, when all was done
                pipeline.hdel(self._keys("erasing", tenant=tenant), *mine)
            self._save(erasure, counts, client=pipeline, stage="rewrite", number=number)
            if any(removed.values()):
                known = json.dumps({"matter": erasure.entry.get("matter"), "counts": removed})
                pipeline.set(self._keys("erased", tenant=tenant, subject=erasure.subject), known, ex=KNOWN_SECONDS)
            pipeline.execute()

    def _save(self, erasure: Erasure, counts: Counter[str], *, client: Any = None, **more: Any) -> None:
        entry = erasure.entry | {"counts": dict(counts)} | more
        with redis_errors():
            (client or self._client).hset(self._keys("erasures"), erasure.member, json.dumps(entry))

    def _erase_jobs(self, erasure: Erasure, documents: Sequence[str]) -> int:
        tenant = erasure.tenant
        argument: dict[str, Any] = {"tenant": tenant, "subject": erasure.subject}
        quoting = sorted({job for document in documents for job in self._documents.jobs_of(tenant, document)})
        erased = 0
        for jobs in _chunks(quoting):
            erased += int(self._scripts.run("erase_jobs", argument | {"jobs": jobs, "any": True}))
        if erasure.matter:
            argument["matter"] = erasure.matter
        for jobs in self._indexed(self._keys("jobs", tenant=tenant)):
            self._holds_lock(erasure)
            erased += int(self._scripts.run("erase_jobs", argument | {"jobs": jobs}))
        return erased

    def _erase_runs(self, erasure: Erasure, documents: Sequence[str]) -> int:
        tenant, erased = erasure.tenant, 0
        for runs in self._indexed(self._keys("runs", tenant=tenant)):
            for run in runs:
                self._holds_lock(erasure)
                argument: dict[str, Any] = {"tenant": tenant, "run": run}
                with redis_errors():
                    about = self._client.hget(self._keys("job", tenant=tenant, id=run), "matter")
                    order: Sequence[str] = documents
                    if erasure.matter and about == erasure.matter:
                        argument["whole"] = True
                        order = self._client.lrange(self._keys("run_order", tenant=tenant, id=run), 0, -1)
                for some in _chunks(order) or [[]]:
                    erased += int(self._scripts.run("erase_run", argument | {"documents": some}))
        return erased

    def _remove_schedules(self, tenant: str, matter: str) -> int:
        meant = [schedule for schedule in self._schedules.every(tenant) if schedule.work.matter == matter]
        for schedule in meant:
            self._schedules.remove(tenant, schedule.id)
        return len(meant)

    def _indexed(self, name: str) -> Iterator[list[str]]:
        cursor = 0
        while True:
            with redis_errors():
                cursor, found = self._client.zscan(name, cursor, count=_CHUNK)
            yield [member for member, _ in found]
            if not cursor:
                return

    def _prove(self, carried: Sequence[Erasure]) -> list[Exception | None]:
        """End the erasures after whose last step the server has rewritten its append-only file; asks for that.

        By then every live worker has said that it keeps nothing of them in memory; one that is silent has it dropped
        before it says anything again. Answers what each of them failed by, if it did.
        """
        if not carried:
            return []
        forgotten = min((worker.forgotten for worker in self._fleet.workers()), default=sys.maxsize)
        done, asked = self._rewriting.settle([erasure.entry.get("asked") for erasure in carried])
        return [
            or_error(self._settle, erasure, gone and erasure.entry.get("number", 0) <= forgotten, asked)
            for erasure, gone in zip(carried, done, strict=True)
        ]

    def _settle(self, erasure: Erasure, gone: bool, asked: str | None) -> None:
        argument = {"member": erasure.member, "at": erasure.entry["at"]}
        proved = erasure.entry["stage"] == "proved"  # by somebody who died before it was noted
        if proved or (gone and self._scripts.run("erase_proof", argument | {"stage": "proved"})):
            counts = {name: str(count) for name, count in erasure.entry["counts"].items()}
            self._audit.note(erasure.tenant, erasure.entry["actor"], "erasure.done", erasure.subject, **counts)
            self._scripts.run("erase_proof", argument | {"stage": "noted"})
            log.info("caretaker: the erasure of %s is complete", erasure.subject)
        elif asked:
            self._scripts.run("erase_proof", argument | {"asked": asked})

    def _holds_lock(self, erasure: Erasure) -> bool:
        """Take or renew the lock, which keeps the caretaker from doing all again; doing it twice would do no harm."""
        name = self._lock(erasure)
        with redis_errors():
            if self._client.set(name, self._me, nx=True, px=LOCK_MILLISECONDS):
                return True
            return self._client.get(name) == self._me and bool(self._client.pexpire(name, LOCK_MILLISECONDS))

    def _lock(self, erasure: Erasure) -> str:
        return self._keys("eraser", tenant=erasure.tenant, subject=erasure.subject)


def _erasure(member: str, text: str) -> Erasure:
    tenant, _, subject = member.partition("|")
    return Erasure(tenant, subject, json.loads(text))


def _chunks(names: Sequence[str]) -> list[list[str]]:
    return [list(names[at : at + _CHUNK]) for at in range(0, len(names), _CHUNK)]
