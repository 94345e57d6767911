"""The scripts of runs against a plain model: random interleavings of clients, workers that die or come late, crashes.

After every step the counts of each run agree with its documents, no more live than the window allows, and a run has
ended exactly when nothing of it is left to do.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from gateway.stack.valkey import EmbeddedValkey
from services.errors import CasemillError, Conflict
from services.jobs import Claim, Completion, Device, JobType, Lane, State, Step, Submission
from services.lifecycle import Lifecycle
from services.runs import Runs, RunSubmission
from services.settings import Settings
from tests.conftest import delete_keys, job_index, leaked_keys
from tests.state_machines import run_lives

pytestmark = pytest.mark.both_servers

DEVICES = (Device.CPU, Device.ANY)
LANES = (Lane.EXTRACT, Lane.ANALYZE)
PLAN = (Step("extract", "extract", Lane.EXTRACT), Step("scan", "scan", Lane.ANALYZE))
PROBLEM = {"type": "urn:x", "title": "x", "status": 500, "code": "broken", "detail": "x", "retryable": True}
ENDS = ("succeeded", "failed", "cancelled", "expired")
WINDOW = 2
DOCUMENTS = 6
LATER = 4e9  # 2096, when no test runs


def machine(url: str) -> type[RuleBasedStateMachine]:
    class RunMachine(RuleBasedStateMachine):
        runs = Bundle("runs")
        held = Bundle("held")

        def __init__(self) -> None:
            super().__init__()
            values = {"REDIS_URL": url, "prefix": f"model-{os.urandom(4).hex()}:", "run_window": WINDOW}
            self.lifecycle = Lifecycle(Settings.model_validate(values))
            self.keys = self.lifecycle.keys
            self.store = Runs(self.lifecycle)
            self.raw: Any = self.lifecycle.client
            self.added: dict[str, list[str]] = {}
            self.sealed: set[str] = set()
            self.paused: set[str] = set()
            self.under_way: set[str] = set()
            self.documents = [f"doc_{number}" for number in range(DOCUMENTS)]
            for document in self.documents:
                self.raw.hset(self.keys("document", tenant="acme", id=document), mapping={"name": document})

        def teardown(self) -> None:
            """Whatever was left behind can be ended or ends by itself, and then nothing without an end is left."""
            cancelled = list(self.added)[1::2]
            for run in cancelled:
                self.store.cancel("acme", run)
            self.lifecycle.care(dead_workers=["w1", "w2"])
            for run in cancelled:
                assert self.store.get("acme", run).state.final, "a cancelled run ends once its workers are gone"
            for run in self.added:
                if not self.store.get("acme", run).state.final:
                    self.store.resume("acme", run)
            self.time_comes()
            self.an_hour_passes()
            while claim := self._claim("w1"):
                self._end(claim, "succeeded")
            for run in self.added:
                assert self.store.get("acme", run).state.final, "a run ends by itself whoever it was left by"
            for queue in ("extract.any", "analyze.any"):
                self.raw.delete(self.keys("tickets", queue=queue))
            for lane in LANES:
                self.raw.delete(self.keys("clock", lane=lane, priority="normal"))
            leaked = leaked_keys(self.lifecycle.client, self.keys.prefix)
            delete_keys(self.raw, self.keys.prefix)
            self.raw.close()
            assert not leaked, leaked

        @rule(target=runs, count=st.just(0) | st.integers(1, DOCUMENTS), seal=st.booleans(), later=st.booleans())
        def submit(self, count: int, seal: bool, later: bool) -> Any:
            """Without documents it is as if the gateway died between the run and its first documents."""
            if len(self.added) > 2:
                return multiple()
            begins = LATER if later else None
            work = Submission("acme", JobType.REVIEW, {"playbook": "x"}, plan=PLAN, not_before=begins)
            run, _ = self.store.submit(RunSubmission("run", work))
            known = [name for name in self.documents if self.raw.exists(self.keys("document", tenant="acme", id=name))]
            if count:
                self.store.add("acme", run.id, known[:count])
            self.added[run.id] = known[:count]
            if seal:
                self.seal(run.id)
            return run.id

        @rule(run=runs, document=st.integers(0, DOCUMENTS - 1))
        def add(self, run: str, document: int) -> None:
            name = self.documents[document]
            try:
                self.store.add("acme", run, [name])
            except CasemillError as error:
                assert error.code in ("run_state", "document_unknown")
                return
            assert run not in self.sealed
            if name not in self.added[run]:
                self.added[run].append(name)

        @rule(run=runs)
        def seal(self, run: str) -> None:
            if not self.store.get("acme", run).state.final:
                self.sealed.add(run)
            self.store.seal("acme", run)

        @rule(document=st.integers(0, DOCUMENTS - 1))
        def delete_document(self, document: int) -> None:
            self.raw.delete(self.keys("document", tenant="acme", id=self.documents[document]))

        @rule(run=runs, action=st.sampled_from(["pause", "resume"]))
        def hold(self, run: str, action: str) -> None:
            final = self.store.get("acme", run).state.final
            try:
                getattr(self.store, action)("acme", run)
                assert not final
            except Conflict:
                assert final

        @rule(run=runs)
        def cancel(self, run: str) -> None:
            self.store.cancel("acme", run)

        @rule(run=runs)
        def retry(self, run: str) -> None:
            before = self.store.get("acme", run)
            try:
                after = self.store.retry("acme", run)
            except Conflict:
                assert before.cancelling and not before.state.final
                return
            assert after.succeeded == before.succeeded
            if before.state.final:
                self.sealed.add(run)
                undone = before.total - before.succeeded
                assert after.state.final == (undone == 0) or self._deleted(run)

        def _deleted(self, run: str) -> bool:
            return any(not self.raw.exists(self.keys("document", tenant="acme", id=name)) for name in self.added[run])

        def _claim(self, worker: str) -> Claim | None:
            for lane in LANES:
                for claim in self.lifecycle.work([], lane=lane, devices=DEVICES, worker=worker, n=1)[1]:
                    return claim
            return None

        @rule(target=held, worker=st.sampled_from(["w1", "w2"]))
        def claim(self, worker: str) -> Any:
            return self._claim(worker) or multiple()

        @rule(outcomes=st.lists(st.sampled_from(["succeeded", "succeeded", "succeeded", "failed"]), max_size=12))
        def a_worker_goes_on(self, outcomes: list[Any]) -> None:
            """Claims and ends step after step, so that runs come to their own end too."""
            for outcome in outcomes:
                if claim := self._claim("w1"):
                    self._end(claim, outcome)

        @rule(
            claim=held, outcome=st.sampled_from(["succeeded", "succeeded", "failed", "retry", "released", "cancelled"])
        )
        def end(self, claim: Claim, outcome: Any) -> None:
            """Also repeats ends and delivers late ones: a claim stays in the bundle."""
            self._end(claim, outcome)

        def _end(self, claim: Claim, outcome: Any) -> None:
            completion = Completion(claim, outcome, result=f"res_{claim.attempt}", problem=PROBLEM, retry_after=9e9)
            self.lifecycle.work([completion], lane=claim.lane, devices=DEVICES, worker="w", n=0)

        @rule(worker=st.sampled_from(["w1", "w2"]))
        def worker_dies(self, worker: str) -> None:
            self.lifecycle.care(dead_workers=[worker])

        @rule()
        def time_comes(self) -> None:
            for member in self.raw.zrange(self.keys("scheduled"), 0, -1):
                self.raw.zadd(self.keys("scheduled"), {member: 1})
            self.lifecycle.care()

        @rule()
        def an_hour_passes(self) -> None:
            for member, score in self.raw.zrange(self.keys("open_runs"), 0, -1, withscores=True):
                run = member.partition("|")[2]
                if self.store.get("acme", run).state is State.SCHEDULED:
                    assert score > LATER, "a run that has not begun may get documents"
                    continue
                self.raw.zadd(self.keys("open_runs"), {member: 1})
                self.sealed.add(run)
            self.lifecycle.care()

        @rule()
        def replay_a_dead_letter(self) -> None:
            for job in job_index(self.lifecycle).dead_letters("acme", limit=1).rows:
                run = "run" + job.id[3:].rpartition(".")[0]
                before = self.store.get("acme", run)
                cancelling = before.cancelling and not before.state.final
                try:
                    self.lifecycle.replay("acme", job.id)
                except Conflict:
                    assert cancelling
                    continue
                assert not cancelling
                if before.state.final:  # reopened for this one alone
                    self.sealed.add(run)

        @invariant()
        def counts_agree_with_the_documents(self) -> None:
            for run, added in self.added.items():
                record = self.store.get("acme", run)
                rows = list(self.store.documents("acme", run))
                assert [row.document for row in rows] == added
                assert record.total == len(added)
                states = Counter(row.state for row in rows)
                for state in ENDS:
                    assert getattr(record, state) == states[state], (state, states)
                assert record.active == states["running"] <= WINDOW
                live = [row for row in rows if row.job and row.state == "running"]
                for row in live:
                    assert not self.lifecycle.get("acme", str(row.job)).state.final, row
                for row in rows:
                    if row.job and row.state in ENDS:
                        assert self.lifecycle.get("acme", row.job).state.value == row.state, row

        @invariant()
        def only_what_may_begin_begins(self) -> None:
            under_way: set[str] = set()
            for run in self.added:
                live = {str(row.job): row for row in self.store.documents("acme", run) if row.state == "running"}
                if self.store.get("acme", run).state is State.SCHEDULED:
                    assert not live, "a run begins before its time"
                held = run in self.paused and self.store.get("acme", run).paused
                for row in (live[job] for job in live.keys() - self.under_way):
                    assert not held, "a paused run begins a document"
                    assert self.raw.exists(self.keys("document", tenant="acme", id=row.document)), "one that is gone"
                under_way |= live.keys()
            self.under_way = under_way
            self.paused = {run for run in self.added if self.store.get("acme", run).paused}

        @invariant()
        def what_is_kept_beside_the_record_lives_as_long(self) -> None:
            records = {run: self.store.get("acme", run) for run in self.added}
            still_open = {f"acme|{run}" for run, record in records.items() if not (record.sealed or record.state.final)}
            assert set(self.raw.zrange(self.keys("open_runs"), 0, -1)) == still_open
            for run, record in records.items():
                for name in ("job", "run_order", "run_items", "run_jobs"):
                    ttl = self.raw.ttl(self.keys(name, tenant="acme", id=run))
                    assert ttl == -2 or (ttl > 0) == record.state.final, name

        @invariant()
        def a_run_ends_exactly_when_nothing_is_left(self) -> None:
            for run in self.added:
                record = self.store.get("acme", run)
                done = record.ended == record.total and record.active == 0
                if record.state.final:
                    assert done
                    assert (record.state is State.SUCCEEDED) <= (record.succeeded == record.total)
                elif record.state is State.SCHEDULED:
                    assert record.active == 0
                elif done:
                    assert not record.sealed, "nothing is left to do, but the run has not ended"
                elif record.active == 0:
                    assert record.paused, "documents wait, and nothing starts them"
                names = [row[1]["event"] for row in self.raw.xrange(self.keys("events", tenant="acme", id=run))]
                ends = [name for name in names if name in ENDS]
                assert ends == ([record.state.value] if record.state.final else [])

    return RunMachine


@pytest.mark.parametrize("lives", [25, pytest.param(100, marks=pytest.mark.slow)])
def test_random_lives_of_runs_agree_with_the_model(server: EmbeddedValkey, lives: int) -> None:
    run_lives(machine(server.url), lives, 40)
