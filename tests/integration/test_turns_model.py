"""What claims take, against a plain model: random mixes of tenants, models, batches, crashes and waits."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from gateway.stack.valkey import EmbeddedValkey
from services.jobs import Choice, Claim, Completion, Device, JobType, Lane, Priority, Submission
from services.lifecycle import Lifecycle
from services.redis_client import server_time
from services.settings import Settings
from tests.conftest import KEYS, delete_keys
from tests.integration.test_lifecycle import PROBLEM
from tests.state_machines import run_lives
from tests.turns import Turns, Waiting

pytestmark = pytest.mark.both_servers

DEVICES = {"w1": (Device.CPU, Device.ANY), "w2": (Device.GPU, Device.ANY)}
WORKERS = st.sampled_from(list(DEVICES))
MODELS = ("minilm", "other")
# How often a job is lost with its worker before it is a suspect, of which a worker runs one at a time.
SUSPECT_AFTER = 2


def machine(url: str) -> type[RuleBasedStateMachine]:
    class TurnsMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            values = {"REDIS_URL": url, "prefix": f"turns-{os.urandom(4).hex()}:"}
            self.lifecycle = Lifecycle(Settings.model_validate(values))
            self.raw: Any = self.lifecycle.client
            self.turns = Turns(server_time(self.lifecycle.client))
            self.running: list[tuple[str, Claim]] = []
            self.failed: list[str] = []
            self.lost: Counter[str] = Counter()

        def teardown(self) -> None:
            delete_keys(self.raw, self.lifecycle.keys.prefix)
            self.raw.close()

        @rule(
            tenant=st.sampled_from(["acme", "bolt"]),
            priority=st.sampled_from([Priority.NORMAL, Priority.BULK, Priority.CRITICAL]),
            jobs=st.lists(
                st.tuples(st.sampled_from(MODELS), st.sampled_from([0.25, 1.0, 2.0]), st.sampled_from(list(Device))),
                min_size=10,
                max_size=20,
            ),
            waited=st.sampled_from([0, 20, 5 * 3600]),
        )
        def submit(self, tenant: str, priority: Priority, jobs: list[tuple[str, float, Device]], waited: int) -> None:
            """Some jobs come; what waits by then has waited so much longer than the server's clock says."""
            if waited:
                self._back_date(waited)
            asked: dict[str, Any] = {"tenant": tenant, "type": JobType.EMBED, "input": {}, "priority": priority}
            self.lifecycle.submit_each(
                [Submission(**asked, model=model, cost=cost, device=device) for model, cost, device in jobs]
            )
            self._look()

        def _back_date(self, seconds: int) -> None:
            pipeline = self.raw.pipeline()
            for member, job in list(self.turns.waiting.items()):
                queued = f"{job.queued - seconds:.6f}"
                queue = "suspects" if job.suspect else "usual"
                parts = {"lane": Lane.EMBED, "device": job.device, "priority": job.priority, "model": job.model}
                pipeline.hset(self._record(member), "queued", queued)
                pipeline.zadd(self.lifecycle.keys("ages", **parts, queue=queue), {member: float(queued)})
                self.turns.waiting[member] = replace(job, queued=float(queued))
            pipeline.execute()

        @rule(
            worker=WORKERS,
            n=st.integers(1, 3),
            times=st.integers(2, 8),
            models=st.sampled_from(
                [{"minilm": True, "other": False}, {"minilm": False, "other": True}, {"other": True}, None]
            ),
        )
        def claim(self, worker: str, n: int, times: int, models: dict[str, bool] | None) -> None:
            for _ in range(times):
                busy = any(self._suspect(_job_of(claim)) for holder, claim in self.running if holder == worker)
                devices, choice = DEVICES[worker], Choice(models=models)
                _, claims = self.lifecycle.work([], lane=Lane.EMBED, devices=devices, worker=worker, n=n, choice=choice)
                now = server_time(self.lifecycle.client)
                taken = [_job_of(claim) for claim in claims]
                self.turns.claim(taken, n, devices=devices, models=models, suspects=not busy, now=now)
                self.running += [(worker, claim) for claim in claims]

        @rule(worker=WORKERS, outcome=st.sampled_from(["lost", "succeeded", "released", "retry", "failed"]))
        def end(self, worker: str, outcome: Any) -> None:
            """All that a worker runs ends, or is lost with it."""
            done = [claim for holder, claim in self.running if holder == worker]
            self.running = [(holder, claim) for holder, claim in self.running if holder != worker]
            if outcome == "lost":
                self.lost.update(map(_job_of, done))
                self._care(dead_workers=[worker])
                return
            ends = [Completion(claim, outcome, problem=PROBLEM, retry_after=9e9) for claim in done]
            states, _ = self.lifecycle.work(ends, lane=Lane.EMBED, devices=(), worker=worker, n=0)
            self.failed += [_job_of(claim) for claim, state in zip(done, states, strict=True) if state == "failed"]
            self._look()

        @rule()
        def come_back(self) -> None:
            """What is to be tried again is due, and what has failed is replayed."""
            name = self.lifecycle.keys("scheduled")
            for member in self.raw.zrange(name, 0, -1):
                self.raw.zadd(name, {member: 1})
            self._care()
            for job in self.failed:
                self.lifecycle.replay(*job.split("|"))
                del self.lost[job], self.turns.starts[job]
            self.failed.clear()
            self._look()

        @precondition(lambda self: self.turns.waiting)
        @rule(place=st.integers(0, 20))
        def cancel(self, place: int) -> None:
            members = sorted(self.turns.waiting)
            member = members[place % len(members)]
            assert self.lifecycle.cancel(*member.split("|")) == "cancelled"
            del self.turns.waiting[member]

        def _care(self, **changes: Any) -> None:
            self.lifecycle.care(**changes)
            self._look()
            self.turns.rest()

        def _look(self) -> None:
            """Tell the model who has come."""
            now = server_time(self.lifecycle.client)
            names = self.raw.scan_iter(f"{self.lifecycle.keys.prefix}backlog:*", count=KEYS)
            members = {member for name in names for member in self.raw.zrange(name, 0, -1)}
            assert members >= self.turns.waiting.keys()
            self.turns.enter({member: self._waiting(member) for member in members - self.turns.waiting.keys()}, now)

        def _waiting(self, member: str) -> Waiting:
            fields = self.raw.hgetall(self._record(member))
            return Waiting(
                fields["tenant"],
                Device(fields["device"]),
                Priority(fields["priority"]),
                fields["model"],
                float(fields["cost"]),
                float(fields["queued"]),
                float(fields["score"]),
                self._suspect(member),
            )

        def _record(self, member: str) -> str:
            tenant, job = member.split("|")
            return self.lifecycle.keys("job", tenant=tenant, id=job)

        def _suspect(self, member: str) -> bool:
            return self.lost[member] >= SUSPECT_AFTER

    return TurnsMachine


def _job_of(claim: Claim) -> str:
    return f"{claim.tenant}|{claim.id}"


@pytest.mark.parametrize("lives", [12, pytest.param(40, marks=pytest.mark.slow)])
def test_claims_take_what_the_model_says(server: EmbeddedValkey, lives: int) -> None:
    run_lives(machine(server.url), lives, 60)
