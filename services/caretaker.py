"""The caretaker: one thread in every worker and gateway, one active at a time, that mends what crashes leave behind.

It also decides how many workers there should be, so that one place does.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable

from services.audit import Audit
from services.audit_archive import AuditArchive
from services.blobs import Blobs
from services.capacity import Capacity
from services.documents import Documents
from services.erasure import Erasures
from services.errors import CasemillError, Permanent
from services.files import Files
from services.lifecycle import Lifecycle
from services.named_blobs import named_blobs
from services.orphans import remove_orphans
from services.redis_client import redis_errors, server_time
from services.schedules import Schedules

log = logging.getLogger(__name__)

ROUND_SECONDS = 1.0
LOCK_MILLISECONDS = 3000
SWEEP_SECONDS = 3600
DAY_SECONDS = 86400  # what leaves the audit logs leaves them in files of a day or more


class Caretaker(threading.Thread):
    """Runs ``Lifecycle.care`` once a second while it holds the lock; a dead holder is replaced within three seconds."""

    def __init__(self, lifecycle: Lifecycle, blobs: Blobs) -> None:
        super().__init__(name="caretaker", daemon=True)
        self._lifecycle = lifecycle
        self._blobs = blobs
        self._schedules = Schedules(lifecycle)
        self._files = Files(lifecycle, blobs)
        self._erasures = Erasures(lifecycle, Documents(lifecycle.client, lifecycle.keys, blobs))
        self._capacity = Capacity(lifecycle)
        self._archive = AuditArchive(lifecycle.settings.data_dir)
        self._failing: dict[Callable[[], object], str] = {}
        self._swept = 0.0
        self._me = secrets.token_hex(8)
        self._stop_event = threading.Event()

    def run(self) -> None:
        """Rounds until :meth:`stop`; an outage of Redis is waited out."""
        duties = (self._care, self._fire, self._expire, self._erase, self._sweep, self._decide)
        while not self._stop_event.wait(ROUND_SECONDS):
            if self._tried(self._holds_lock):
                for duty in duties:
                    self._tried(duty)

    def stop(self) -> None:
        """End the thread; its lock runs out by itself."""
        self._stop_event.set()

    def _tried(self, duty: Callable[[], object]) -> bool:
        """Whether a duty answers that it is so. One that fails is logged, once for each reason, and keeps no other."""
        try:
            answer = bool(duty())
        except Exception as error:  # without this thread nothing would mend a crash, so it outlives any surprise
            reason = f"{type(error).__name__} {error}"
            if self._failing.get(duty) != reason:
                self._failing[duty] = reason
                tell = log.warning if isinstance(error, CasemillError) else log.exception
                tell("caretaker: %s", error)
            return False
        self._failing.pop(duty, None)
        return answer

    def _care(self) -> None:
        requeued, promoted, _ = self._lifecycle.care()
        if requeued or promoted:
            log.warning("caretaker: %d jobs requeued, %d retried", requeued, promoted)

    def _fire(self) -> None:
        if fired := self._schedules.fire():
            log.info("caretaker: %d scheduled runs started", fired)

    def _expire(self) -> None:
        if expired := self._files.expire():
            log.info("caretaker: %d files removed that had expired or belonged to nothing", expired)

    def _erase(self) -> None:
        if erased := self._erasures.carry_on():
            log.warning("caretaker: %d erasures that were interrupted are carried out", erased)

    def _decide(self) -> None:
        self._capacity.decide()

    def _sweep(self) -> None:
        """Once an hour, beside the rounds, remove the files that nothing names any more."""
        if time.monotonic() - self._swept < SWEEP_SECONDS and self._swept:
            return
        self._swept = time.monotonic()
        threading.Thread(target=self._sweep_files, name="sweep", daemon=True).start()

    def _sweep_files(self) -> None:
        for duty in (self._sweep_blobs, self._sweep_orphans, self._shorten_audit_logs):
            self._tried(duty)

    def _sweep_blobs(self) -> None:
        kept = self._lifecycle.settings.result_ttl_seconds + 2 * SWEEP_SECONDS
        if removed := self._blobs.sweep(("in", "res"), time.time() - kept, lambda: named_blobs(self._lifecycle)):
            log.info("caretaker: %d blobs of jobs that ended long ago removed", removed)

    def _sweep_orphans(self) -> None:
        client, keys = self._lifecycle.client, self._lifecycle.keys
        if removed := remove_orphans(client, keys, self._blobs, time.time() - SWEEP_SECONDS):
            log.info("caretaker: %d files of documents that are gone removed", removed)

    def _shorten_audit_logs(self) -> None:
        days = self._lifecycle.settings.audit_days
        if days is None:
            return
        audit = Audit(self._lifecycle.client, self._lifecycle.keys)
        before = server_time(self._lifecycle.client) - days * DAY_SECONDS
        for tenant in audit.tenants():
            try:
                while taken := self._archive.take_out(audit, tenant, before, patience=DAY_SECONDS):
                    log.info("caretaker: %d entries of an audit log are exported and taken out", taken)
            except Permanent as broken:
                log.error("caretaker: %s", broken.detail)

    def _holds_lock(self) -> bool:
        client, name = self._lifecycle.client, self._lifecycle.keys("caretaker")
        with redis_errors():
            if client.set(name, self._me, nx=True, px=LOCK_MILLISECONDS):
                return True
            if client.get(name) != self._me:
                return False
            return bool(client.pexpire(name, LOCK_MILLISECONDS))
