"""What a tenant may have under way in runs and batches: how many, and the tokens that they may still take of models."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.cli.runs import add_documents
from gateway.stack.valkey import EmbeddedValkey
from services.batches import Batch, Batches, BatchSubmission
from services.documents import Documents
from services.errors import BacklogFull, CasemillError, PayloadTooLarge, Transient, from_problem
from services.jobs import Completion, JobType, Lane, Step, Submission
from services.lifecycle import Lifecycle
from services.principal import Limits
from services.recurrence import Missed, Recurrence
from services.run_limits import WINDOW_MINUTES
from services.runs import Run, Runs, RunSubmission
from services.schedules import Schedules
from tests.batch_house import URL, House, made
from tests.integration.test_gateway import problem
from tests.integration.test_lifecycle import PROBLEM
from tests.serving import Served, serving, settings_on

pytestmark = pytest.mark.both_servers

PLAN = (Step("extract", "extract", Lane.EXTRACT), Step("terms", "terms", Lane.GENERATE, model="m"))
REVIEW = Submission("acme", JobType.REVIEW, {"playbook": "x"}, plan=PLAN, model="m", matter="m-1")
TWO_REVIEWS = Limits(tokens=2000 // WINDOW_MINUTES + 1)


@pytest.fixture
def house(server: EmbeddedValkey, tmp_path: Path) -> Iterator[House]:
    house = made(server, tmp_path)
    yield house
    raw: Any = house.lifecycle.client
    for tenant in ("acme", "rival"):
        for run in raw.smembers(house.lifecycle.keys("live_runs", tenant=tenant)):
            house.lifecycle.cancel(tenant, run)
    house.tidy()
    house.lifecycle.client.close()


def limited(house: House, **changes: Any) -> Lifecycle:
    return Lifecycle(house.lifecycle.settings.model_copy(update=changes), house.lifecycle.client)


def upload(house: House, tokens: int) -> str:
    data = b"x" * 4 * tokens
    return house.files.add("acme", [data], size=len(data), filename="x", purpose="batch").id


def documents(house: House, count: int) -> list[str]:
    store = Documents(house.lifecycle.client, house.lifecycle.keys, house.blobs)
    return [store.add("acme", b"%d" % n, name=f"{n}.bin", matter="m-1").id for n in range(count)]


def batch(house: House, batches: Batches, tokens: int = 1, **changes: Any) -> Batch:
    values: dict[str, Any] = {
        "tenant": "acme",
        "endpoint": URL,
        "file": upload(house, tokens),
        "metadata": {},
    } | changes
    return batches.submit(BatchSubmission(**values))[0]


def refusal(submit: Callable[[], Any], kind: type[CasemillError], code: str) -> CasemillError:
    with pytest.raises(kind) as refused:
        submit()
    assert refused.value.code == code
    return refused.value


def test_so_many_runs_and_batches_of_a_tenant_live(house: House) -> None:
    narrow = limited(house, max_tenant_runs=2)
    batches, runs = Batches(narrow), Runs(narrow)
    first = batch(house, batches, idempotency_key="once", request_hash="x")
    run, _ = runs.submit(RunSubmission("open", REVIEW))
    full = refusal(lambda: batch(house, batches), BacklogFull, "runs_full")
    assert full.retry_after
    refusal(lambda: runs.submit(RunSubmission("one more", REVIEW)), BacklogFull, "runs_full")
    assert batch(house, batches, idempotency_key="once", request_hash="x").id == first.id, "it was accepted before"
    rival = Submission("rival", JobType.EXTRACT, {})
    assert runs.submit(RunSubmission("another tenant's", rival))[1]
    assert runs.cancel("acme", run.id).state == "cancelled"
    batch(house, batches)
    house.lifecycle.cancel("acme", first.id)
    assert runs.submit(RunSubmission("one more", REVIEW))[1]


def test_a_run_that_is_retried_lives_again(house: House) -> None:
    narrow = limited(house, max_tenant_runs=1)
    runs = Runs(narrow)
    run, _ = runs.submit(RunSubmission("r", REVIEW))
    runs.add("acme", run.id, documents(house, 1))
    runs.cancel("acme", run.id)
    runs.retry("acme", run.id)
    refusal(lambda: batch(house, Batches(narrow)), BacklogFull, "runs_full")


def test_the_command_line_waits_until_its_key_may_add_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[CasemillError | None] = [BacklogFull("full", code="tokens_full", retry_after=7), None]
    waits: list[float] = []

    def post(path: str, body: dict[str, Any]) -> None:
        assert (path, body) == ("/v1/runs/run_1/documents", {"documents": ["doc_1"]})
        if error := answers.pop(0):
            raise from_problem(error.problem())

    monkeypatch.setattr(time, "sleep", waits.append)
    client: Any = SimpleNamespace(post=post)
    add_documents(client, "run_1", ["doc_1"])
    assert waits == [7]
    answers.append(BacklogFull("runs", code="runs_full", retry_after=7))
    refusal(lambda: add_documents(client, "run_1", ["doc_1"]), Transient, "runs_full")


def test_a_file_that_a_refused_batch_names_is_not_held(house: House) -> None:
    narrow = Batches(limited(house, max_tenant_runs=1))
    batch(house, narrow)
    file = upload(house, 1)
    refusal(lambda: batch(house, narrow, file=file), BacklogFull, "runs_full")
    house.files.remove("acme", file)


def test_tokens_of_batches_wait_up_to_what_the_rate_gives_in_a_day(house: House) -> None:
    mine: dict[str, Any] = {"owner": "k1", "limits": Limits(tokens=1)}
    refusal(lambda: batch(house, house.batches, WINDOW_MINUTES + 1, **mine), PayloadTooLarge, "tokens_exceeded")
    first = batch(house, house.batches, WINDOW_MINUTES - 9, **mine)
    full = refusal(lambda: batch(house, house.batches, 10, **mine), BacklogFull, "tokens_full")
    assert full.retry_after
    assert str(WINDOW_MINUTES - 9) in full.detail
    batch(house, house.batches, 9, **mine)
    batch(house, house.batches, 10, owner="k2", limits=Limits(tokens=1))
    batch(house, house.batches, 10 * WINDOW_MINUTES, owner="k3")
    house.lifecycle.cancel("acme", first.id)
    batch(house, house.batches, 10, **mine)


def test_the_keys_of_a_tenant_share_its_tokens(house: House) -> None:
    shared = Batches(limited(house, tenant_tokens_per_minute=1))
    batch(house, shared, WINDOW_MINUTES - 9, owner="k1")
    refusal(lambda: batch(house, shared, 10, owner="k2"), BacklogFull, "tokens_full")
    batch(house, shared, 9, owner="k2")


def test_documents_of_runs_count_until_they_have_ended(house: House) -> None:
    runs, limits = Runs(house.lifecycle), TWO_REVIEWS
    named = documents(house, 4)

    def started(count: int, **changes: Any) -> Run:
        asked = RunSubmission("r", REVIEW, documents=count, owner="k1", limits=limits, **changes)
        return runs.submit(asked)[0]

    refusal(lambda: started(3), PayloadTooLarge, "tokens_exceeded")
    refusal(lambda: started(0, whole_matter=True), PayloadTooLarge, "tokens_exceeded")
    run = started(0)
    refusal(lambda: runs.add("acme", run.id, named[:3]), PayloadTooLarge, "tokens_exceeded")
    assert runs.get("acme", run.id).total == 0
    runs.add("acme", run.id, named[:2])
    assert runs.add("acme", run.id, named[:2]).total == 2, "those it has are not counted again"
    refusal(lambda: runs.add("acme", run.id, named[2:3]), BacklogFull, "tokens_full")
    refusal(lambda: batch(house, house.batches, 1000, owner="k1", limits=limits), BacklogFull, "tokens_full")
    step = house.claim()
    assert step
    assert house.end(Completion(step, "failed", problem=PROBLEM)) == "failed"
    assert runs.add("acme", run.id, named[2:3]).total == 3
    assert runs.submit(RunSubmission("r", Submission("acme", JobType.EXTRACT, {}), documents=99, limits=limits))[1]


def two_reviews(house: House, **changes: Any) -> Run:
    work = replace(REVIEW, **changes.pop("work", {}))
    return Runs(house.lifecycle).submit(RunSubmission("r", work, owner="k1", limits=TWO_REVIEWS, **changes))[0]


def test_documents_of_a_run_that_has_not_begun_count(house: House) -> None:
    documents(house, 2)
    later = two_reviews(house, whole_matter=True, work={"not_before": time.time() + 3600})
    refusal(lambda: two_reviews(house, documents=1), BacklogFull, "tokens_full")
    Runs(house.lifecycle).cancel("acme", later.id)
    assert two_reviews(house, documents=1)


def test_documents_count_between_the_submission_and_their_adding_and_once(house: House) -> None:
    runs, named = Runs(house.lifecycle), documents(house, 3)
    run = two_reviews(house, documents=2)
    refusal(lambda: two_reviews(house, documents=1), BacklogFull, "tokens_full")
    assert runs.add("acme", run.id, named[:2]).total == 2
    refusal(lambda: runs.add("acme", run.id, named[2:]), BacklogFull, "tokens_full")
    runs.cancel("acme", run.id)
    short = two_reviews(house, documents=2)
    runs.add("acme", short.id, named[:1])
    runs.seal("acme", short.id)
    assert two_reviews(house, documents=1), "no more than it has come to a run that is sealed"


def test_who_waits_for_tokens_is_not_gone(house: House) -> None:
    runs, named, raw = Runs(house.lifecycle), documents(house, 3), house.lifecycle.client
    run = two_reviews(house)
    runs.add("acme", run.id, named[:2])
    members, name = {f"acme|{run.id}": 1.0}, house.lifecycle.keys("open_runs")
    raw.zadd(name, members)
    refusal(lambda: runs.add("acme", run.id, named[2:]), BacklogFull, "tokens_full")
    assert cast(float, raw.zscore(name, f"acme|{run.id}")) > time.time()


def test_what_is_added_is_held_to_the_limit_of_the_key_that_made_the_run(house: House) -> None:
    runs, named = Runs(house.lifecycle), documents(house, 3)
    bounded = two_reviews(house)
    refusal(lambda: runs.add("acme", bounded.id, named), PayloadTooLarge, "tokens_exceeded")
    boundless, _ = runs.submit(RunSubmission("r", REVIEW, owner="k2"))
    assert runs.add("acme", boundless.id, named).total == 3
    shared = Runs(limited(house, tenant_tokens_per_minute=1))
    refusal(lambda: shared.add("acme", bounded.id, named[:2]), PayloadTooLarge, "tokens_exceeded")


def test_the_command_line_adds_in_halves_what_can_never_fit_at_once() -> None:
    added: list[list[str]] = []

    def post(_: str, body: dict[str, Any]) -> None:
        if len(body["documents"]) > most:
            raise from_problem(PayloadTooLarge("too many", code="tokens_exceeded").problem())
        added.append(body["documents"])

    client, most = cast(Any, SimpleNamespace(post=post)), 2
    add_documents(client, "run_1", list("abcde"))
    assert "".join(itertools.chain(*added)) == "abcde"
    most = 0
    refusal(lambda: add_documents(client, "run_1", ["f"]), CasemillError, "tokens_exceeded")


def test_what_a_schedule_starts_is_never_refused(house: House) -> None:
    narrow = limited(house, max_tenant_runs=1, tenant_tokens_per_minute=1)
    documents(house, 2)
    Runs(narrow).submit(RunSubmission("first", REVIEW))
    schedules = Schedules(narrow)
    schedule = schedules.add("weekly", Recurrence(zone="UTC", start=0.0, cron="* * * * *"), Missed.ONCE, REVIEW)
    assert schedule.next_due
    due, raw = schedule.next_due - 60, narrow.client
    raw.hset(narrow.keys("schedule", tenant="acme", id=schedule.id), "next", str(due))
    raw.zadd(narrow.keys("schedules"), {f"acme|{schedule.id}": due})
    assert schedules.fire() == 1
    schedules.remove("acme", schedule.id)


@pytest.fixture(scope="module")
def served(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_on(server, tmp_path_factory.mktemp("limits"), max_tenant_runs=1)) as alone:
        yield alone


def test_the_refusal_says_when_to_come_back(served: Served) -> None:
    line = {"custom_id": "1", "method": "POST", "url": URL, "body": {"model": "m", "prompt": "hello"}}
    form = {"purpose": "batch"}
    file = served.http.post("/v1/files", data=form, files={"file": ("x.jsonl", json.dumps(line).encode())}).json()
    asked = {"input_file_id": file["id"], "endpoint": URL, "completion_window": "24h"}
    batch = served.http.post("/v1/batches", json=asked)
    assert batch.status_code == 200, batch.text
    for path, body in (("/v1/batches", asked), ("/v1/runs", {"type": "extract", "open": True})):
        refused = served.http.post(path, json=body)
        problem(refused, 429, "runs_full")
        assert int(refused.headers["retry-after"]) > 0
    assert served.http.post("/v1/batches", json=asked).json()["error"]["code"] == "runs_full", (
        "as OpenAI's client reads"
    )
    served.http.post(f"/v1/batches/{batch.json()['id']}/cancel")
    assert served.http.post("/v1/runs", json={"type": "extract", "open": True}).status_code == 202
