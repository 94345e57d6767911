"""Every Redis key of Casemill, with its type and lifetime, for Python and for the Lua scripts alike.

A job is named by its tenant and id, written ``tenant|id`` where it stands as a member of a set. Tenant names and ids
contain neither ``|`` nor ``:`` (``services.jobs`` checks them), so no key of one tenant can be read as another's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

TEMPLATES: Final = {
    # name: template                                  type, lifetime
    "job": "job:{tenant}:{id}",  # hash; result_ttl after the job ended
    "events": "events:{tenant}:{id}",  # stream of the job's events; result_ttl after the job ended
    "jobs": "jobs:{tenant}",  # zset id → time of submission; trimmed with the jobs
    "label": "label:{tenant}:{digest}",  # zset id → time of submission, by the HMAC of one value; trimmed with the jobs
    "labels": "labels:{tenant}",  # hash id → the digests that it stands under; trimmed with the jobs
    "tenant_events": "tenant-events:{tenant}",  # stream of states of jobs, runs, batches, bounded; 24 h, as each in it
    "idempotency": "idempotency:{tenant}:{key}",  # string "id|HMAC of the request", by the HMAC of its key; 24 h
    "dead": "dead:{tenant}",  # zset id → time of failure; trimmed with the jobs
    "document": "document:{tenant}:{id}",  # hash; until the document is deleted
    "outputs": "outputs:{tenant}:{document}",  # hash "step:version" → blob; goes with the document
    # zset "job|blob" → when the job's record is gone; result_ttl and an hour after the last result
    "results": "results:{tenant}:{document}",
    "vectors": "vectors:{tenant}",  # hash keyed text → blob that holds its vector, bounded; 30 d after the last one
    "vectors_before": "vectors-before:{tenant}",  # the generation of "vectors" before; 30 d after its last one
    "playbooks": "playbooks:{tenant}",  # hash name → latest version; until the playbook is removed
    "playbook_versions": "playbook-versions:{tenant}",  # hash version → JSON; permanent, jobs and results name them
    "documents": "documents:{tenant}",  # zset document → time of upload; until deleted
    "stored": "stored:{tenant}",  # hash "all" and "key:<id>" → bytes that are stored; counts down as they go
    "storing": "storing:{tenant}",  # zset "key id|bytes|random" → when this reservation of room ends; 10 min
    "matter": "matter:{tenant}:{matter}",  # zset document → time of upload; until its documents are deleted
    "erasures": "erasures",  # hash "tenant|subject" → JSON; until nothing is left of what was to be erased
    "erasing": "erasing:{tenant}",  # hash document or "matter:" name → subject of its erasure; empty when idle
    "erased": "erased:{tenant}:{subject}",  # string JSON, what it was that is erased, for a repeat; 24 h
    "eraser": "eraser:{tenant}:{subject}",  # string, the lock of who carries it out; 15 s, renewed
    "runs": "runs:{tenant}",  # zset run → time of submission; trimmed with the runs, whose records are of the key `job`
    "run_order": "run-order:{tenant}:{id}",  # list of the run's documents as they were added; as the run
    "run_pending": "run-pending:{tenant}:{id}",  # zset document → number, those that have not begun; as the run
    "run_items": "run-items:{tenant}:{id}",  # hash document → JSON, those that began; as the run
    "run_active": "run-active:{tenant}:{id}",  # set of the jobs under way; empty when the run has ended
    "run_jobs": "run-jobs:{tenant}:{id}",  # zset job → when its document began; as the run
    "live_runs": "live-runs:{tenant}",  # set of runs and batches that have not ended; empty when idle
    "open_runs": "open-runs",  # zset tenant|id → when a run that may still get documents is sealed; empty when idle
    "batches": "batches:{tenant}",  # zset batch → time of creation; trimmed with the batches, which are as the runs
    "file": "file:{tenant}:{id}",  # hash; until the file is deleted or expires
    "files": "files:{tenant}",  # zset file → time of its upload; until deleted
    "file_ends": "file-ends",  # zset tenant|id → when a file expires, or its bytes are removed; until they are
    "schedule": "schedule:{tenant}:{id}",  # hash; until the schedule is removed
    "tenant_schedules": "schedules:{tenant}",  # set of a tenant's schedules; until removed
    "schedules": "schedules",  # zset tenant|id → next due time; until removed
    "webhooks": "webhooks:{tenant}",  # set of a tenant's endpoints; until removed
    "webhook": "webhook:{tenant}:{id}",  # hash with the secrets; until removed
    # zset delivery → when it was made; trimmed with the deliveries, whose records are of the key `job`
    "deliveries": "deliveries:{tenant}:{webhook}",
    # zset tenant|id → virtual start time, of the jobs of one model ("" for none), suspects or not; empty when idle
    "backlog": "backlog:{lane}:{device}:{priority}:{queue}:{model}",
    "backlogs": "backlogs:{lane}",  # set "device|priority|queue|model" of the backlogs that hold jobs; empty when idle
    "trials": "trials",  # hash worker → lease of the suspect that it runs; pruned by the caretaker
    "ages": "ages:{lane}:{device}:{priority}:{queue}:{model}",  # zset tenant|id → when it was accepted, as "backlog"
    "virtual": "virtual",  # hash "lane|priority" → virtual time: the start of what was claimed last; permanent
    "clock": "clock:{lane}:{priority}",  # hash tenant → where its next job starts; goes when nothing waits
    "leases": "leases",  # zset tenant|id|attempt → end of the lease; empty when idle
    "scheduled": "scheduled",  # zset tenant|id → due time, of jobs and runs; empty when idle
    "deliveries_scheduled": "deliveries-scheduled",  # zset tenant|id → time of the next attempt; empty when idle
    "expiries": "expiries",  # zset tenant|id → time after which it shall not start; empty when idle
    "waiting": "waiting",  # hash "lane|tenant" → jobs, "lane|tenant|bytes" → input bytes; empty when idle
    "service": "service",  # hash lane → measured seconds of a job, smoothed; permanent
    "tenants": "tenants",  # set of tenant names that ever submitted; permanent
    "counters": "counters",  # hash of totals shown as metrics; permanent
    "timings": "timings",  # hash "wait|lane|priority|bound" and "run|…" → how many took that long; permanent
    "caretaker": "caretaker",  # string, the lock's owner; 3 s
    "worker": "worker:{id}",  # string, JSON announcement; 10 s, renewed while the worker lives
    "workers": "workers",  # zset worker → last announcement; trimmed by the caretaker
    "scale": "scale",  # hash kind of worker → JSON {min, max} that somebody set; permanent
    "scale_limits": "scale_limits",  # string, JSON of what the machine of `casemill up` has room for; 30 s, renewed
    "scale_plan": "scale_plan",  # hash kind of worker → JSON of the decision that holds; permanent
    "placement": "placement:{lane}:{device}",  # hash worker → JSON {ends, slots, weight, queues}; 10 s, as "worker"
    "turns": "turns:{lane}:{device}",  # hash "turn|worker" → place in the turn, "known" → workers; 1 h, renewed in use
    "apikey": "apikey:{id}",  # hash: hash of the secret, tenant, scopes, limits; until revoked
    "bucket": "bucket:{rate}",  # string, time at which a rate's bucket is full; until then
    "apikeys": "apikeys",  # set of key ids; until revoked
    "audit": "audit:{tenant}",  # stream number-0 → entry, hash of services.audit; permanent unless audit_days is set
    "models_noted": "models-noted",  # hash model → SHA-256 as the audit log has it; permanent
    "login": "login:{token}",  # string, API key id; 10 min, read once
    "session": "session:{token}",  # string, API key id; 12 h
    "tickets": "tickets:{queue}",  # list that Celery reads; empty when idle; a worker's own: 10 s, as "worker"
}


@dataclass(frozen=True, slots=True)
class Keys:
    """Builds full key names under one prefix."""

    prefix: str

    def __call__(self, name: str, **parts: str) -> str:
        """The key ``name`` with its parts filled in; raises ``KeyError`` for an unknown name or a missing part."""
        return self.prefix + TEMPLATES[name].format(**parts)

    @property
    def ticket_prefix(self) -> str:
        """What kombu puts before a queue's name (its ``global_keyprefix``)."""
        return self("tickets", queue="")


def lua_functions() -> str:
    """The same keys as Lua functions ``key.<name>(part, …)`` over a global ``P``, so that a name stands only here."""
    lines = ["local key = {}"]
    for name, template in TEMPLATES.items():
        parts = re.findall(r"\{(\w+)\}", template)
        expression = re.sub(r"\{(\w+)\}", r"' .. \1 .. '", template)
        lines.append(f"function key.{name}({', '.join(parts)}) return P .. '{expression}' end")
    return "\n".join(lines)
