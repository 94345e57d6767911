"""Batches on the server: whatever dies, is cancelled or expires, each line of the file is written once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.stack.valkey import EmbeddedValkey
from services.blobs import Blobs
from services.errors import Conflict, NotFound, PayloadTooLarge, Unavailable
from services.files import Files
from services.jobs import Completion, JobType, Submission
from services.models import Catalog
from services.storage_room import Storer
from tests.batch_house import NEEDLE, House, made
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.both_servers


@pytest.fixture(params=["sealed", "plain"])
def house(request: pytest.FixtureRequest, server: EmbeddedValkey, tmp_path: Path) -> Iterator[House]:
    house = made(server, tmp_path, sealed=request.param == "sealed")
    yield house
    house.tidy()
    house.lifecycle.client.close()


def test_a_cancelled_batch_keeps_what_is_done(house: House) -> None:
    batch = house.submit(10)
    house.work_off(5)  # the check and four lines
    held = house.claim()
    assert held
    asked = house.batches.cancel("acme", batch.id)
    assert (asked.status, asked.total, asked.succeeded) == ("cancelling", 10, 4)
    assert house.batches.cancel("acme", batch.id).cancelling == asked.cancelling
    assert house.claim() is None
    assert house.end(house.run(held)) == "succeeded", "it was done before it heard of the cancellation"
    assert house.work_off() == 1
    ended = house.batches.get("acme", batch.id)
    assert (ended.status, ended.succeeded, ended.failed) == ("cancelled", 5, 0)
    assert [row["custom_id"] for row in house.rows(ended.output)] == [f"line {number}" for number in range(5)]
    left = house.rows(ended.errors)
    assert [row["custom_id"] for row in left] == [f"line {number}" for number in range(5, 10)]
    assert {row["error"]["code"] for row in left} == {"batch_cancelled"}
    steps = list(house.blobs.root.glob("*/*/res_*"))
    assert len(steps) == 2, "the results of lines are left"


def test_an_expired_batch_has_the_finished_lines(house: House) -> None:
    batch = house.submit(6, broken=(1,))
    house.work_off(4)
    house.time_comes()
    assert house.work_off() == 1
    ended = house.batches.get("acme", batch.id)
    assert (ended.status, ended.succeeded, ended.failed) == ("expired", 2, 1)
    assert ended.finished
    assert [row["custom_id"] for row in house.rows(ended.output)] == ["line 0", "line 2"]
    errors = house.rows(ended.errors)
    assert [row["response"] and row["response"]["status_code"] for row in errors] == [422, None, None, None]
    assert [row["error"] and row["error"]["code"] for row in errors] == [None] + ["batch_expired"] * 3
    assert house.lifecycle.standing()["dead_letters"] == 0


@pytest.mark.parametrize("running", [False, True])
def test_a_batch_can_be_cancelled_before_its_lines_are_known(house: House, running: bool) -> None:
    batch = house.submit(5)
    step = house.claim() if running else None
    house.batches.cancel("acme", batch.id)
    if step:
        house.end(house.run(step))
    ended = house.batches.get("acme", batch.id)
    assert (ended.status, ended.output, ended.errors) == ("cancelled", None, None)
    assert house.claim() is None
    house.files.remove("acme", batch.file)


def test_a_file_stays_while_a_batch_reads_it(house: House) -> None:
    batch = house.submit(2)
    raw: Any = house.lifecycle.client
    with pytest.raises(Conflict):
        house.files.remove("acme", batch.file)
    raw.zadd(house.lifecycle.keys("file_ends"), {f"acme|{batch.file}": 1})
    assert house.files.expire() == 0
    assert house.work_off() == 4
    raw.zadd(house.lifecycle.keys("file_ends"), {f"acme|{batch.file}": 1})
    assert house.files.expire() == 1
    with pytest.raises(NotFound):
        house.files.blocks("acme", batch.file)


def test_what_a_client_says_lies_nowhere_in_the_open(house: House) -> None:
    batch = house.submit(2, broken=(1,), stop=[NEEDLE])
    house.work_off()
    done = house.batches.get("acme", batch.id)
    assert (done.status, done.metadata) == ("completed", {"case": NEEDLE})
    assert house.files.get("acme", batch.file).filename == NEEDLE
    assert house.rows(done.errors)[0]["response"]["body"]["error"]["message"].startswith("body.prompt")
    raw: Any = house.lifecycle.client
    stored = [path.read_bytes() for path in house.lifecycle.settings.data_dir.rglob("*") if path.is_file()]
    records = [
        str(raw.hgetall(name)) for name in raw.scan_iter(f"{house.lifecycle.keys.prefix}*") if raw.type(name) == "hash"
    ]
    seen = NEEDLE.encode() in b"".join(stored), NEEDLE in "".join(records)
    assert seen == ((False, False) if house.blobs.seals.on else (True, True))


def test_files_take_room_until_they_are_gone(house: House) -> None:
    small = Files(house.lifecycle, house.blobs, tenant_limit=10)

    def add() -> str:
        return small.add("acme", [b"12345678"], size=8, filename="x", purpose="batch", storer=Storer("k", 20)).id

    first = add()
    with pytest.raises(PayloadTooLarge):
        add()
    small.remove("acme", first)
    assert add() != first


def test_bytes_without_a_record_go(house: House) -> None:
    house.files.write("acme", "file-lost", [b"secret"])
    assert house.files.expire() == 0
    raw: Any = house.lifecycle.client
    raw.zadd(house.lifecycle.keys("file_ends"), {"acme|file-lost": 1})
    assert house.files.expire() == 1  # and the fixture finds no bytes


def test_a_batch_waits_for_a_disk_with_room(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = house.submit(3)
    house.work_off(4)

    def full(*_: Any) -> None:
        raise Unavailable("no space", code="storage_unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(Blobs, "put_blocks", full)
        for _ in range(house.lifecycle.settings.max_attempts + 2):
            step = house.claim()
            assert step
            assert house.end(house.run(step)) == "scheduled"
            raw: Any = house.lifecycle.client
            ((member, due),) = raw.zrange(house.lifecycle.keys("scheduled"), 0, -1, withscores=True)
            assert due - raw.time()[0] <= 301
            raw.zadd(house.lifecycle.keys("scheduled"), {member: 1})
            house.lifecycle.care()
        assert house.batches.get("acme", batch.id).status == "finalizing"
    assert house.work_off() == 1
    ended = house.batches.get("acme", batch.id)
    assert (ended.status, len(house.rows(ended.output))) == ("completed", 3)


def test_a_late_execution_adds_no_line_and_records_no_file(house: House) -> None:
    batch = house.submit(2)
    late = house.claim("w2")
    assert late
    house.lifecycle.care(dead_workers=["w2"])
    assert house.run(late).outcome == "cancelled"
    assert house.batches.get("acme", batch.id).total == 0
    house.work_off(3)
    late = house.claim("w2")
    assert late
    assert late.task == "batch_output"
    house.lifecycle.care(dead_workers=["w2"])
    assert house.run(late).outcome == "cancelled"
    assert house.batches.get("acme", batch.id).output is None
    house.work_off()
    assert house.batches.get("acme", batch.id).status == "completed"


def test_a_real_model_answers_lines_as_it_answers_jobs(server: EmbeddedValkey, tmp_path: Path) -> None:
    house = made(server, tmp_path, "llama")
    Catalog(house.lifecycle.settings.models_folder).add(write_tiny_model(tmp_path / "tiny.gguf"), name="tiny")
    asked: dict[str, Any] = {"prompt": "alpha beta", "max_tokens": 5, "temperature": 0, "logprobs": 1}
    batch = house.submit(2, model="tiny", n=2, **asked)
    house.work_off()
    done = house.batches.get("acme", batch.id)
    assert (done.status, done.model) == ("completed", "tiny")
    job, _ = house.lifecycle.submit(Submission("acme", JobType.GENERATE, asked, model="tiny"))
    claim = house.claim()
    assert claim
    alone = json.loads(house.run(claim).result)
    house.lifecycle.cancel("acme", job.id)
    for row in house.rows(done.output):
        body = row["response"]["body"]
        assert [choice["text"] for choice in body["choices"]] == [alone["text"]] * 2
        assert len(body["choices"][0]["logprobs"]["tokens"]) == 5
        assert body["usage"]["completion_tokens"] == 10
    house.tidy()
    house.lifecycle.client.close()


FATE = st.sampled_from(["ends", "ends", "dies before", "dies after", "ends twice", "comes late"])


@given(
    fates=st.lists(FATE, max_size=24),
    count=st.integers(1, 6),
    broken=st.sets(st.integers(0, 5), max_size=2),
    stop=st.none() | st.tuples(st.integers(0, 12), st.sampled_from(["cancel", "expire"])),
)
@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
def test_whatever_dies_each_line_stands_once(
    server: EmbeddedValkey,
    tmp_path_factory: pytest.TempPathFactory,
    fates: list[str],
    count: int,
    broken: set[int],
    stop: tuple[int, str] | None,
) -> None:
    house = made(server, tmp_path_factory.mktemp("house"))
    batch = house.submit(count, tuple(broken))
    late: list[Completion] = []
    for turn, fate in enumerate(itertools.chain(fates, itertools.repeat("ends"))):
        if stop and turn == stop[0]:
            if stop[1] == "expire":
                house.time_comes()
            else:
                house.lifecycle.cancel("acme", batch.id)
        claim = house.claim()
        if claim is None:
            if house.batches.get("acme", batch.id).finished:
                break
            continue
        if fate == "dies before":
            house.lifecycle.care(dead_workers=["w1"])
            continue
        completion = house.run(claim)
        if fate in ("dies after", "comes late"):
            late += [completion] if fate == "comes late" else []
            house.lifecycle.care(dead_workers=["w1"])
            continue
        house.end(completion)
        if fate == "ends twice":
            assert house.end(completion) is None
        while late and turn % 2:
            assert house.end(late.pop()) is None
    ended = house.batches.get("acme", batch.id)
    answered, failed = house.rows(ended.output), house.rows(ended.errors)
    if ended.status == "failed":
        assert ended.problem
        assert ended.problem["code"] == "worker_lost"
    elif ended.in_progress:  # else it was cancelled or has expired before its lines were known
        named = sorted(row["custom_id"] for row in [*answered, *failed])
        assert named == [f"line {number}" for number in range(count)]
        assert len(answered) == ended.succeeded
        assert ended.usage is not None
    assert house.lifecycle.standing()["dead_letters"] == 0
    raw: Any = house.lifecycle.client
    assert raw.zcard(house.lifecycle.keys("jobs", tenant="acme")) == 0
    told = [json.loads(row[1]["data"]) for row in raw.xrange(house.lifecycle.keys("tenant_events", tenant="acme"))]
    assert {(event.get("batch"), event.get("job")) for event in told} == {(batch.id, None)}
    house.tidy()
    house.lifecycle.client.close()
