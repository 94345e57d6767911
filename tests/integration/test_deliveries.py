"""Deliveries on the server: made by the script that ends a job, once, and kept when all attempts have failed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.stack.valkey import EmbeddedValkey
from services.blobs import Blobs
from services.deliveries import Deliveries
from services.documents import Documents
from services.errors import Conflict, NotFound
from services.jobs import Claim, JobType, Lane, State, Submission
from services.lifecycle import DELIVERY_RETRY_SECONDS, Lifecycle
from services.recurrence import Missed, Recurrence
from services.runs import Runs
from services.schedules import Schedules
from services.settings import Settings
from services.webhooks import EVENTS, MAX_WEBHOOKS, Webhook, Webhooks
from tests.batch_house import NEEDLE, made
from tests.conftest import job_index
from tests.integration.test_lifecycle import PROBLEM, claim, finish, submit, tidy

__all__ = ["tidy"]  # an autouse fixture

pytestmark = pytest.mark.both_servers

URL = "http://127.0.0.1:9/hook"


@pytest.fixture(autouse=True)
def sent(lifecycle: Lifecycle, tidy: None) -> Iterator[None]:
    """What a test left to be sent comes to an end."""
    yield
    while held := claim(lifecycle, Lane.DELIVER):
        finish(lifecycle, held[0], "cancelled")


@pytest.fixture
def webhooks(lifecycle: Lifecycle) -> Webhooks:
    return Webhooks(lifecycle)


@pytest.fixture
def webhook(webhooks: Webhooks) -> Webhook:
    return webhooks.add("acme", URL, EVENTS, None)[0]


@pytest.fixture
def deliveries(lifecycle: Lifecycle, webhooks: Webhooks) -> Deliveries:
    return Deliveries(lifecycle, webhooks)


def ended(lifecycle: Lifecycle, outcome: Any = "succeeded", **changes: Any) -> str:
    """A job that has ended, whose delivery therefore waits."""
    job = submit(lifecycle, **changes)
    (held,) = claim(lifecycle)
    assert finish(lifecycle, held, outcome, problem=PROBLEM if outcome == "failed" else None)
    return job


def send(lifecycle: Lifecycle, outcome: Any, **changes: Any) -> Claim:
    """One attempt; what failed is due again at once."""
    raw: Any = lifecycle.client
    for member in raw.zrange(lifecycle.keys("deliveries_scheduled"), 0, -1):
        raw.zadd(lifecycle.keys("deliveries_scheduled"), {member: 0})
    lifecycle.care()
    (held,) = claim(lifecycle, Lane.DELIVER)
    assert finish(lifecycle, held, outcome, **changes)
    return held


def test_the_script_that_ends_a_job_makes_its_delivery(
    lifecycle: Lifecycle, webhook: Webhook, deliveries: Deliveries
) -> None:
    job = ended(lifecycle, "failed", matter="m-1", priority="high")
    (waiting,) = deliveries.page("acme", webhook.id, limit=10).rows
    assert (waiting.state, waiting.event, waiting.subject, waiting.tries) == (State.QUEUED, "job.failed", job, 0)
    (held,) = claim(lifecycle, Lane.DELIVER)
    assert held.id == waiting.id
    assert held.priority == "high"
    told = held.input
    assert {name: told[name] for name in ("state", "matter", "code", "webhook")} == {
        "state": "failed",
        "matter": "m-1",
        "code": "broken",
        "webhook": webhook.id,
    }
    finish(lifecycle, held, result="204")
    assert lifecycle.counters()["deliveries.succeeded"] == 1
    assert "jobs.succeeded" not in lifecycle.counters()
    assert deliveries.page("acme", webhook.id, limit=10).rows[0].attempts[0].status == 204
    # Its own end is told to nobody.
    assert len(deliveries.page("acme", webhook.id, limit=10).rows) == 1


@pytest.mark.parametrize(
    ("end", "event", "counts"),
    [
        ("done", "batch.completed", {"total": 3, "completed": 2, "failed": 1}),
        ("invalid", "batch.failed", {"total": 0, "completed": 0, "failed": 0}),
        ("cancel", "batch.cancelled", {"total": 3, "completed": 1, "failed": 0}),
        ("expire", "batch.expired", {"total": 3, "completed": 1, "failed": 0}),
    ],
)
def test_the_script_that_ends_a_batch_makes_its_delivery(
    server: EmbeddedValkey, tmp_path: Path, end: str, event: str, counts: dict[str, int]
) -> None:
    house = made(server, tmp_path)
    webhooks = Webhooks(house.lifecycle)
    ours, _ = webhooks.add("acme", URL, ("batch.completed", "batch.failed", "batch.cancelled", "batch.expired"), None)
    others = [
        webhooks.add("acme", f"{URL}/jobs", ("job.succeeded", "run.finished"), None)[0],
        webhooks.add("acme", f"{URL}/matter", EVENTS, "m-1")[0],
    ]
    batch = house.submit(3, broken=(1,), **({"model": 7} if end == "invalid" else {}))
    if end in ("cancel", "expire"):
        house.work_off(2)  # the check and one line
        house.lifecycle.cancel("acme", batch.id) if end == "cancel" else house.time_comes()
    house.work_off()
    log = Deliveries(house.lifecycle, webhooks)
    (row,) = log.page("acme", ours.id, limit=10).rows
    assert (row.event, row.subject) == (event, batch.id)
    assert [log.page("acme", other.id, limit=10).rows for other in others] == [[], []]
    (held,) = claim(house.lifecycle, Lane.DELIVER)
    assert held.input["status"] == event.removeprefix("batch.") == house.batches.get("acme", batch.id).status
    assert held.input["request_counts"] == counts
    assert held.input.get("code") == ("batch_invalid" if end == "invalid" else None)
    assert NEEDLE not in str(held.input)
    finish(house.lifecycle, held, result="204")
    raw: Any = house.lifecycle.client
    raw.delete(house.lifecycle.keys("tickets", queue="deliver.any"))
    house.tidy()
    house.lifecycle.client.close()


def test_a_second_life_of_a_job_has_a_message_of_its_own(
    lifecycle: Lifecycle, webhook: Webhook, deliveries: Deliveries
) -> None:
    job = ended(lifecycle, "failed")
    lifecycle.replay("acme", job)
    (held,) = claim(lifecycle)
    finish(lifecycle, held, "failed", problem=PROBLEM)
    found = deliveries.page("acme", webhook.id, limit=10).rows
    assert [row.event for row in found] == ["job.failed"] * 2
    assert found[0].id != found[1].id


def test_after_the_last_attempt_it_is_kept_as_failed_and_can_be_replayed(
    lifecycle: Lifecycle, webhook: Webhook, deliveries: Deliveries
) -> None:
    ended(lifecycle)
    for number in range(len(DELIVERY_RETRY_SECONDS) + 1):
        held = send(lifecycle, "retry", problem=PROBLEM, retry_after=100.0)
        assert held.tries == number + 1
    (kept,) = deliveries.page("acme", webhook.id, limit=10, states=[State.FAILED]).rows
    assert len(kept.attempts) == kept.tries == 10
    assert job_index(lifecycle).dead_letters("acme").rows == []
    counters = lifecycle.counters()
    assert (counters["deliveries.failed"], counters["deliveries.retried"]) == (1, 9)
    # They count as no failures of our own.
    assert not {"retries", "extra_executions"} & counters.keys()
    assert deliveries.replay("acme", webhook.id, kept.id).state is State.QUEUED
    with pytest.raises(Conflict):
        deliveries.replay("acme", webhook.id, kept.id)
    held = send(lifecycle, "succeeded", result="200")
    assert (held.id, held.tries) == (kept.id, 1)
    assert deliveries.get("acme", webhook.id, kept.id).state is State.SUCCEEDED


def test_retries_of_one_tenant_do_not_stand_before_another_tenants_message(
    lifecycle: Lifecycle, webhooks: Webhooks, webhook: Webhook
) -> None:
    for _ in range(5):
        ended(lifecycle)
    raw: Any = lifecycle.client
    for held in claim(lifecycle, Lane.DELIVER, n=5):
        record = lifecycle.keys("job", tenant="acme", id=held.id)
        raw.hset(record, "queued", float(raw.hget(record, "queued")) - 86400)  # its receiver has been away for a day
        finish(lifecycle, held, "retry", problem=PROBLEM, retry_after=0.0)
    other = webhooks.add("other", URL, EVENTS, None)[0]
    ended(lifecycle, tenant="other")
    lifecycle.care()
    assert max(oldest for _, oldest in lifecycle.depths().values()) < 3600, "nor do they look like work left lying"
    (first,) = claim(lifecycle, Lane.DELIVER)
    assert first.input["webhook"] == other.id
    finish(lifecycle, first)


def test_the_standing_of_jobs_counts_no_deliveries(lifecycle: Lifecycle, webhook: Webhook) -> None:
    for _ in range(2):
        ended(lifecycle)
    send(lifecycle, "retry", problem=PROBLEM, retry_after=100.0)
    (sending,) = claim(lifecycle, Lane.DELIVER)
    submit(lifecycle)
    (running,) = claim(lifecycle)
    later = submit(lifecycle, not_before=9e9)
    standing = lifecycle.standing()
    assert (standing["scheduled"], standing["deliveries_scheduled"], standing["leases"]) == (1, 1, 1)
    finish(lifecycle, running, "cancelled")
    finish(lifecycle, sending, "succeeded", result="200")
    lifecycle.cancel("acme", later)
    send(lifecycle, "succeeded", result="200")


def test_a_dead_worker_counts_as_an_attempt(lifecycle: Lifecycle, webhook: Webhook, deliveries: Deliveries) -> None:
    ended(lifecycle)
    (lost,) = claim(lifecycle, Lane.DELIVER)
    lifecycle.care(dead_workers=["w1"])
    (again,) = claim(lifecycle, Lane.DELIVER)
    assert (again.id, again.tries) == (lost.id, 2)
    assert not finish(lifecycle, lost, result="200")
    assert finish(lifecycle, again, result="200")
    (row,) = deliveries.page("acme", webhook.id, limit=10).rows
    assert [attempt.outcome for attempt in row.attempts] == ["worker_lost", "succeeded"]


def test_a_removed_endpoint_is_told_nothing_and_its_log_is_gone(
    lifecycle: Lifecycle, webhooks: Webhooks, webhook: Webhook, deliveries: Deliveries
) -> None:
    ended(lifecycle)
    (row,) = deliveries.page("acme", webhook.id, limit=10).rows
    webhooks.remove("acme", webhook.id)
    ended(lifecycle)
    (held,) = claim(lifecycle, Lane.DELIVER, n=10)
    assert held.id == row.id
    finish(lifecycle, held, "cancelled")
    with pytest.raises(NotFound):
        deliveries.page("acme", webhook.id, limit=10)
    with pytest.raises(NotFound):
        deliveries.replay("acme", webhook.id, row.id)


def test_what_an_earlier_version_scheduled_elsewhere_comes_due_once(lifecycle: Lifecycle, webhook: Webhook) -> None:
    raw: Any = lifecycle.client
    ended(lifecycle)
    held = send(lifecycle, "succeeded", result="200")
    raw.zadd(lifecycle.keys("scheduled"), {f"acme|{held.id}": 0})
    lifecycle.care()
    assert raw.zcard(lifecycle.keys("scheduled")) == 0


def test_the_log_is_trimmed_with_its_records(lifecycle: Lifecycle, webhook: Webhook, deliveries: Deliveries) -> None:
    raw: Any = lifecycle.client
    ended(lifecycle)
    held = send(lifecycle, "succeeded", result="200")
    index = lifecycle.keys("deliveries", tenant="acme", webhook=webhook.id)
    raw.zadd(index, {held.id: 1})
    lifecycle.care()
    assert raw.zcard(index) == 1
    raw.delete(lifecycle.keys("job", tenant="acme", id=held.id))
    lifecycle.care()
    assert raw.zcard(index) == 0


def test_each_run_of_a_schedule_keeps_the_callback_and_its_documents_have_none(
    settings: Settings, lifecycle: Lifecycle, webhooks: Webhooks, deliveries: Deliveries
) -> None:
    quiet = webhooks.add("acme", URL, (), None)[0]
    documents = Documents(lifecycle.client, lifecycle.keys, Blobs(settings.data_dir))
    documents.add("acme", b"x", name="x.txt", matter="m-1")
    schedules = Schedules(lifecycle)
    work = Submission("acme", JobType.EXTRACT, {"playbook": "x"}, matter="m-1", callback=quiet.id)
    schedule = schedules.add("weekly", Recurrence(zone="UTC", start=0.0, cron="* * * * *"), Missed.ONCE, work)
    raw: Any = lifecycle.client
    assert schedule.next_due
    due = schedule.next_due - 60
    raw.hset(lifecycle.keys("schedule", tenant="acme", id=schedule.id), "next", str(due))
    raw.zadd(lifecycle.keys("schedules"), {f"acme|{schedule.id}": due})
    assert schedules.fire() == 1
    schedules.remove("acme", schedule.id)
    (held,) = claim(lifecycle, Lane.EXTRACT)
    assert finish(lifecycle, held, result="res_1")
    (row,) = deliveries.page("acme", quiet.id, limit=10).rows
    assert (row.event, row.subject[:4]) == ("run.finished", "run_")
    assert Runs(lifecycle).get("acme", row.subject).callback == quiet.id


def test_a_tenant_has_so_many_endpoints_and_each_url_once(lifecycle: Lifecycle, webhooks: Webhooks) -> None:
    for number in range(MAX_WEBHOOKS):
        webhooks.add("acme", f"{URL}/{number}", (), None)
    for url, code in ((f"{URL}/x", "webhooks_full"), (f"{URL}/1", "webhook_exists")):
        with pytest.raises(Conflict) as refused:
            webhooks.add("acme", url, (), None)
        assert refused.value.code == code
    webhooks.add("other", f"{URL}/1", (), None)
