"""The Lua scripts against a plain model: random interleavings of clients, workers that die or come late, and clocks.

After every step the records agree with the model, and what the scripts keep beside the records (backlogs, leases,
counts of what waits, terminal events) agrees with the records.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from gateway.stack.valkey import EmbeddedValkey
from services.errors import BacklogFull, Conflict
from services.jobs import Claim, Completion, Device, JobType, Lane, Priority, State, Step, Submission
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.conftest import KEYS, delete_keys
from tests.state_machines import run_lives

pytestmark = pytest.mark.both_servers

DEVICES = (Device.CPU, Device.ANY)
PLAN = (Step("extract", "extract", Lane.EXTRACT), Step("scan", "scan", Lane.ANALYZE))
PROBLEM = {"type": "urn:x", "title": "x", "status": 500, "code": "broken", "detail": "x", "retryable": True}
TENANTS = st.sampled_from(["acme", "bolt"])
ENDS = ("succeeded", "failed", "cancelled", "expired")
# How often a job is lost with its worker before it is a suspect, of which a worker runs one at a time.
SUSPECT_AFTER = 2


@dataclass
class Expected:
    """What the model knows of a submitted job."""

    tenant: str
    parent: bool
    ended: str | None = None
    lives: int = 1
    results: list[str] = field(default_factory=list)


def machine(url: str) -> type[RuleBasedStateMachine]:
    class LifecycleMachine(RuleBasedStateMachine):
        jobs = Bundle("jobs")
        held = Bundle("held")

        def __init__(self) -> None:
            super().__init__()
            values = {"REDIS_URL": url, "prefix": f"model-{os.urandom(4).hex()}:", "max_tenant_backlog": 12}
            self.lifecycle = Lifecycle(Settings.model_validate(values))
            self.raw: Any = self.lifecycle.client
            self.expected: dict[str, Expected] = {}
            self.running: dict[str, Claim] = {}
            self.worker: dict[str, str] = {}
            self.lost: dict[str, int] = {}

        def teardown(self) -> None:
            delete_keys(self.raw, self.lifecycle.keys.prefix)
            self.raw.close()

        @rule(
            target=jobs,
            tenant=TENANTS,
            priority=st.sampled_from(list(Priority)),
            parent=st.booleans(),
            late=st.booleans(),
        )
        def submit(self, tenant: str, priority: Priority, parent: bool, late: bool) -> Any:
            kind = JobType.REVIEW if parent else JobType.EMBED
            rest: dict[str, Any] = {"plan": PLAN} if parent else {"model": "minilm"}
            submission = Submission(tenant, kind, {}, priority=priority, not_before=9e9 if late else None, **rest)
            try:
                job, _ = self.lifecycle.submit(submission)
            except BacklogFull:
                return multiple()
            self.expected[job.id] = Expected(tenant, parent)
            return job.id

        @rule(target=held, worker=st.sampled_from(["w1", "w2"]), n=st.integers(1, 3))
        def claim(self, worker: str, n: int) -> Any:
            """What it takes of what waits, ``test_turns_model`` looks at."""
            busy = any(self._suspect(job) and self.worker[job] == worker for job in self.running)
            for lane in (Lane.EMBED, Lane.EXTRACT, Lane.ANALYZE):
                claims = self.lifecycle.work([], lane=lane, devices=DEVICES, worker=worker, n=n)[1]
                for claim in claims:
                    assert not self._suspect(claim.id) or (not busy and len(claims) == 1), (
                        "one suspect at a time, alone"
                    )
                    self.running[claim.id], self.worker[claim.id] = claim, worker
                if claims:
                    return multiple(*claims)
            for member in self._waiting():
                assert busy and self._suspect(member.partition("|")[2]), "nothing else is left lying"
            return multiple()

        def _suspect(self, job: str) -> bool:
            return self.lost.get(job, 0) >= SUSPECT_AFTER

        def _backlogs(self) -> set[str]:
            prefix = self.lifecycle.keys.prefix
            return {name.removeprefix(prefix) for name in self.raw.scan_iter(f"{prefix}backlog:*", count=KEYS)}

        def _waiting(self) -> set[str]:
            prefix = self.lifecycle.keys.prefix
            return {member for name in self._backlogs() for member in self.raw.zrange(prefix + name, 0, -1)}

        def _end(self, claim: Claim, outcome: Any) -> None:
            holds = self.running.get(claim.id) is claim
            asked = self.lifecycle.get(claim.tenant, claim.root).cancelling or self._cancel_of(claim)
            completion = Completion(claim, outcome, result=f"res_{claim.attempt}", problem=PROBLEM, retry_after=9e9)
            (counted,), _ = self.lifecycle.work([completion], lane=claim.lane, devices=DEVICES, worker="w", n=0)
            assert bool(counted) == holds, "an end counts exactly while its attempt holds the job"
            if not holds:
                return
            del self.running[claim.id]
            expected = self.expected[claim.root]
            if outcome == "succeeded":
                if claim.step == "extract":
                    expected.ended = "cancelled" if asked else None
                elif not (claim.parent and asked):
                    expected.ended = "succeeded"
                    expected.results.append(completion.result)
                else:
                    expected.ended = "cancelled"
            elif outcome == "cancelled" or asked:
                expected.ended = "cancelled"
            elif outcome == "failed" or (outcome == "retry" and self._tries(claim) >= 3):
                expected.ended = "failed"

        def _cancel_of(self, claim: Claim) -> bool:
            return bool(self.raw.hget(self.lifecycle.keys("job", tenant=claim.tenant, id=claim.id), "cancel"))

        def _tries(self, claim: Claim) -> int:
            fields = self.raw.hgetall(self.lifecycle.keys("job", tenant=claim.tenant, id=claim.id))
            return int(fields["attempt"]) - int(fields.get("released", "0"))

        @rule(claim=held, outcome=st.sampled_from(["succeeded", "failed", "retry", "released", "cancelled"]))
        def end(self, claim: Claim, outcome: str) -> None:
            """Also repeats ends and delivers late ones: a claim stays in the bundle."""
            self._end(claim, outcome)

        @rule(worker=st.sampled_from(["w1", "w2"]))
        def worker_dies(self, worker: str) -> None:
            self.lifecycle.care(dead_workers=[worker])
            for claim in list(self.running.values()):
                record = self.lifecycle.get(claim.tenant, claim.id)
                if record.state is State.RUNNING:
                    continue
                del self.running[claim.id]
                fails = self._suspect(claim.id) and self._tries(claim) >= 3
                self.lost[claim.id] = self.lost.get(claim.id, 0) + 1
                if record.state is not State.CANCELLED:
                    assert record.state is (State.FAILED if fails else State.QUEUED)
                if record.state is not State.QUEUED:
                    self.expected[claim.root].ended = record.state.value

        @rule()
        def leases_run_out(self) -> None:
            for member in self.raw.zrange(self.lifecycle.keys("leases"), 0, -1):
                self.raw.zadd(self.lifecycle.keys("leases"), {member: 1})
            self.worker_dies("nobody")

        @rule()
        def time_comes(self) -> None:
            for member in self.raw.zrange(self.lifecycle.keys("scheduled"), 0, -1):
                self.raw.zadd(self.lifecycle.keys("scheduled"), {member: 1})
            self.lifecycle.care()

        @rule(job=jobs)
        def cancel(self, job: str) -> None:
            expected = self.expected[job]
            verdict = self.lifecycle.cancel(expected.tenant, job)
            if verdict == "cancelled" and expected.ended is None:
                expected.ended = "cancelled"
            assert verdict in ("cancelling", "cancelled") or verdict == expected.ended

        @rule(job=jobs)
        def replay(self, job: str) -> None:
            expected = self.expected[job]
            try:
                self.lifecycle.replay(expected.tenant, job)
            except Conflict:
                assert expected.ended in (None, "succeeded")
                return
            assert expected.ended not in (None, "succeeded")
            expected.ended, expected.lives = None, expected.lives + 1
            self.lost = {name: count for name, count in self.lost.items() if name.partition(".")[0] != job}

        @rule(claim=held)
        def beat(self, claim: Claim) -> None:
            answer = self.lifecycle.renew([claim.member], [])
            assert (answer.get(claim.member) == "lost") == (self.running.get(claim.id) is not claim)

        @invariant()
        def records_agree_with_the_model(self) -> None:
            for job, expected in self.expected.items():
                record = self.lifecycle.get(expected.tenant, job)
                assert (record.state.value if record.state.final else None) == expected.ended, job
                assert len(expected.results) <= 1
                if expected.ended == "succeeded":
                    assert record.result == expected.results[0]
                names = [
                    row[1]["event"]
                    for row in self.raw.xrange(self.lifecycle.keys("events", tenant=expected.tenant, id=job))
                ]
                ends = [name for name in names if name in ENDS]
                assert ends == ([expected.ended] if expected.ended else []), "one terminal event a life"
                assert (self.raw.ttl(self.lifecycle.keys("job", tenant=expected.tenant, id=job)) > 0) == bool(
                    expected.ended
                )

        @invariant()
        def what_is_kept_beside_the_records_agrees_with_them(self) -> None:
            keys = self.lifecycle.keys
            queued: dict[str, int] = {}
            for_models = 0
            in_backlogs = self._waiting()
            states: dict[str, str] = {}
            for name in self.raw.scan_iter(f"{keys.prefix}job:*", count=KEYS):
                fields = self.raw.hgetall(name)
                member = f"{fields['tenant']}|{fields['id']}"
                states[member] = fields["state"]
                if fields["state"] == "queued" or (fields["state"] == "scheduled" and fields["attempt"] == "0"):
                    slot = f"{fields['lane']}|{fields['tenant']}"
                    queued[slot] = queued.get(slot, 0) + 1
                for_models += fields["state"] == "queued" and fields["model"] == "minilm"
            assert in_backlogs == {
                member
                for name in self.raw.scan_iter(f"{keys.prefix}ages:*", count=KEYS)
                for member in self.raw.zrange(name, 0, -1)
            }
            assert in_backlogs == {member for member, state in states.items() if state == "queued"}
            assert {name.replace(":", "|") for name in self._backlogs()} == {
                f"backlog|{lane}|{name}" for lane in Lane for name in self.raw.smembers(keys("backlogs", lane=lane))
            }
            waiting = {
                name: int(count) for name, count in self.raw.hgetall(keys("waiting")).items() if "bytes" not in name
            }
            assert waiting == queued
            counted = {(Lane.EMBED, Device.ANY, "minilm"): for_models} if for_models else {}
            assert self.lifecycle.model_depths() == counted
            leased = {member.rpartition("|")[0] for member in self.raw.zrange(keys("leases"), 0, -1)}
            assert leased == {member for member, state in states.items() if state == "running"}
            assert leased == {f"{claim.tenant}|{claim.id}" for claim in self.running.values()}
            scheduled = set(self.raw.zrange(keys("scheduled"), 0, -1))
            assert scheduled == {member for member, state in states.items() if state == "scheduled"}

    return LifecycleMachine


@pytest.mark.parametrize("lives", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_random_lives_agree_with_the_model(server: EmbeddedValkey, lives: int) -> None:
    run_lives(machine(server.url), lives, 40)
