"""Batches by OpenAI's own client against a running stack: files, all ends of a batch, and the form of its answers."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch
from openai.types.webhooks import BatchCompletedWebhookEvent

from services.keys import Keys
from services.redis_client import connect
from tests.conftest import leaked_keys, wait_until
from tests.integration.conftest import Running, running
from tests.receiver import receiving

ENDS = ("completed", "failed", "expired", "cancelled")
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CASEMILL_MAX_FILE_BYTES", str(2**20))
        patch.setenv("CASEMILL_RUN_WINDOW", "4")
        with running(tmp_path_factory.mktemp("batches")) as stack:
            yield stack


@pytest.fixture(scope="module")
def client(stack: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key, max_retries=0) as made:
        yield made


def request(custom_id: str, url: str = CHAT, **body: Any) -> dict[str, Any]:
    asked = {"model": "fake", "max_tokens": 12} | (
        {"messages": [{"role": "user", "content": f"What of {custom_id}?"}]} if url == CHAT else {}
    )
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": asked | body}


def upload(client: openai.OpenAI, rows: list[Any]) -> str:
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    return client.files.create(file=("requests.jsonl", text.encode()), purpose="batch").id


def started(client: openai.OpenAI, rows: list[Any], endpoint: Any = CHAT, **more: Any) -> Batch:
    return client.batches.create(input_file_id=upload(client, rows), endpoint=endpoint, completion_window="24h", **more)


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    def look() -> Batch | None:
        now = client.batches.retrieve(batch.id)
        return now if now.status in ENDS else None

    return wait_until(look, 60, f"the end of {batch.id}")


def rows_of(client: openai.OpenAI, file: str | None) -> list[dict[str, Any]]:
    assert file
    return [json.loads(line) for line in client.files.content(file).text.splitlines()]


def test_answers_have_the_form_of_the_live_route_in_the_order_of_the_lines(
    stack: Running, client: openai.OpenAI
) -> None:
    rows = [request(f"line-{number}", seed=number, n=2 if number == 3 else 1) for number in range(12)]
    batch = started(client, rows, metadata={"case": "M-1"})
    assert (batch.status, batch.object, batch.metadata) == ("validating", "batch", {"case": "M-1"})
    done = ended(client, batch)
    assert done.status == "completed"
    assert done.request_counts
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (12, 12, 0)
    assert done.error_file_id is None
    assert done.created_at <= (done.in_progress_at or 0) <= (done.finalizing_at or 0) <= (done.completed_at or 0)
    assert done.expires_at == done.created_at + 86400
    found = rows_of(client, done.output_file_id)
    assert [row["custom_id"] for row in found] == [row["custom_id"] for row in rows]
    used = 0
    for row, asked in zip(found, rows, strict=True):
        assert (row["error"], row["response"]["status_code"]) == (None, 200)
        body: dict[str, Any] = row["response"]["body"]
        live = stack.http.post(CHAT, json=asked["body"]).json()
        for own in ("id", "created"):
            assert type(body.pop(own)) is type(live.pop(own))
        assert body == live
        used += body["usage"]["total_tokens"]
    assert len({row["id"] for row in found}) == 12
    assert done.usage
    assert done.usage.total_tokens == used


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [("/v1/completions", {"prompt": ["one", "two"], "n": 2}), ("/v1/embeddings", {"input": ["one", "two"]})],
)
def test_every_endpoint_answers_as_it_does_alone(
    stack: Running, client: openai.OpenAI, endpoint: str, body: dict[str, Any]
) -> None:
    row = request("only", endpoint, **body)
    if endpoint == "/v1/embeddings":
        del row["body"]["max_tokens"]
    done = ended(client, started(client, [row], endpoint))
    (found,) = rows_of(client, done.output_file_id)
    live = stack.http.post(endpoint, json=row["body"]).json()
    answered = found["response"]["body"]
    for own in ("id", "created"):
        assert answered.pop(own, None) is None or live.pop(own)
    assert answered == live


def test_lines_that_fail_stand_in_the_error_file_and_nowhere_else(stack: Running, client: openai.OpenAI) -> None:
    rows = [
        request("good"),
        request("no messages", messages=[]),
        request("streamed", stream=True),
        request("too long", max_tokens=100_000),
    ]
    done = ended(client, started(client, rows))
    assert done.status == "completed"
    assert done.request_counts
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 3)
    assert [row["custom_id"] for row in rows_of(client, done.output_file_id)] == ["good"]
    errors = rows_of(client, done.error_file_id)
    live = stack.http.post(CHAT, json=rows[1]["body"]).json()
    assert errors[0]["response"]["status_code"] == 422
    assert errors[0]["response"]["body"]["error"] == live["error"]
    codes = [row["response"]["body"]["error"]["code"] for row in errors]
    assert codes == ["request_invalid", "stream_unsupported", "context_exceeded"]
    assert stack.http.get("/v1/dead-letters").json()["data"] == []
    listed = {job["id"] for job in stack.http.get("/v1/jobs", params={"limit": 200}).json()["data"]}
    assert not any(job.startswith("batch") for job in listed)
    assert stack.http.get(f"/v1/jobs/{done.id}").status_code == 404
    assert stack.http.get(f"/v1/runs/{done.id}").status_code == 404


def test_a_file_that_is_no_batch_fails_with_every_line_named(client: openai.OpenAI) -> None:
    rows = [
        request("first"),
        "{not json}\n",
        "\n",
        "[" * 100_000 + "\n",
        request("first"),
        request("wrong url", "/v1/embeddings"),
        request("wrong method") | {"method": "GET"},
        request("other model", model="none-such"),
        {"custom_id": "no body", "method": "POST", "url": CHAT},
        request("nan").__repr__().replace("12", "NaN").replace("'", '"'),
    ]
    done = ended(client, started(client, rows))
    assert done.status == "failed"
    assert done.failed_at
    assert done.errors
    assert [(error.line, error.code, error.param) for error in done.errors.data or []] == [
        (2, "invalid_json_line", None),
        (4, "invalid_json_line", None),
        (5, "duplicate_custom_id", "custom_id"),
        (6, "invalid_url", "url"),
        (7, "invalid_method", "method"),
        (8, "model_not_found", "body.model"),
        (9, "missing_required_parameter", "body"),
        (10, "invalid_json_line", None),
    ]
    assert done.output_file_id is None
    empty = ended(client, started(client, ["\n", " \n"]))
    assert empty.errors
    assert [error.code for error in empty.errors.data or []] == ["empty_file"]


def test_files_are_listed_by_page_read_and_deleted(client: openai.OpenAI) -> None:
    before = {file.id for file in client.files.list()}
    mine = [upload(client, [request(str(number))]) for number in range(5)]
    kept = client.files.create(
        file=("short.jsonl", b"x\n"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert kept.expires_at == kept.created_at + 3600
    listed = [file.id for file in client.files.list(limit=2, purpose="batch") if file.id not in before]
    assert listed == [kept.id, *mine[::-1]]
    oldest = [file.id for file in client.files.list(order="asc") if file.id not in before]
    assert oldest == listed[::-1]
    page = client.files.list(limit=2, after=mine[3])
    assert [file.id for file in page.data] == [mine[2], mine[1]]
    assert page.has_more
    file = client.files.retrieve(mine[0])
    assert (file.purpose, file.filename) == ("batch", "requests.jsonl")
    content = client.files.content(mine[0]).read()
    assert json.loads(content) == request("0")
    assert file.bytes == len(content)
    assert client.files.delete(mine[0]).deleted
    for gone in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            gone(mine[0])


def test_what_cannot_be_is_refused(stack: Running, client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as large:
        client.files.create(file=("large.jsonl", io.BytesIO(b"x" * (2**20 + 70_000))), purpose="batch")
    assert large.value.status_code == 413
    with pytest.raises(openai.UnprocessableEntityError) as other:
        client.files.create(file=("x.jsonl", b"x"), purpose="fine-tune")
    assert other.value.code == "purpose_unknown"
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_none")
    done = ended(client, started(client, [request("only")]))
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(done.id)
    with pytest.raises(openai.UnprocessableEntityError) as wrong:
        client.batches.create(input_file_id=done.output_file_id or "", endpoint=CHAT, completion_window="24h")
    assert wrong.value.code == "purpose_wrong"
    key = {"Idempotency-Key": "once", "X-Request-ID": "req_mine"}
    body = {"input_file_id": done.input_file_id, "endpoint": CHAT, "completion_window": "24h"}
    first, again = (stack.http.post("/v1/batches", json=body, headers=key).json() for _ in range(2))
    assert first["id"] == again["id"]
    (row,) = rows_of(client, ended(client, Batch.model_validate(first)).output_file_id)
    assert row["response"]["request_id"] == "req_mine"


def test_batches_are_listed_newest_first(client: openai.OpenAI) -> None:
    made = [started(client, [request(str(number))]) for number in range(3)]
    ids = [batch.id for batch in client.batches.list(limit=2)]
    assert ids[:3] == [batch.id for batch in made[::-1]]
    assert len(set(ids)) == len(ids)
    for batch in made:
        assert ended(client, batch).status == "completed"


def test_openais_client_reads_the_webhook_of_a_batch(stack: Running, client: openai.OpenAI) -> None:
    with receiving() as receiver:
        body = {"url": receiver.url, "events": ["batch.completed"]}
        webhook = stack.http.post("/v1/webhooks", json=body).json()
        done = ended(client, started(client, [request("a secret")], metadata={"case": "a secret"}))
        (message,) = wait_until(lambda: receiver.of(done.id), 30, "the message")
        assert stack.http.delete(f"/v1/webhooks/{webhook['id']}").status_code == 204
    event = client.webhooks.unwrap(message.body, message.headers, secret=webhook["secret"])
    assert isinstance(event, BatchCompletedWebhookEvent)
    assert BatchCompletedWebhookEvent.model_validate_json(message.body) == event
    assert (event.id, event.object, event.data.id) == (message.headers["webhook-id"], "event", done.id)
    assert event.created_at >= (done.completed_at or 0)
    assert b"a secret" not in message.body
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(
            message.body.replace(b"completed", b"completeb"), message.headers, secret=webhook["secret"]
        )


def test_nothing_of_a_batch_is_left_without_an_end(stack: Running, client: openai.OpenAI) -> None:
    done = ended(client, started(client, [request(str(number)) for number in range(30)]))
    redis = connect(stack.stack._settings)
    prefix = stack.settings.prefix
    assert [name for name in redis.scan_iter(f"{prefix}*{done.id}*") if f"job:default:{done.id}" not in name] == [
        Keys(prefix)("events", tenant="default", id=done.id)
    ]
    assert not [name for name in leaked_keys(redis, prefix) if done.id in name]
    blobs = {path.name.partition("_")[0] for path in Path(stack.settings.data_dir, "blobs").glob("*/*/*")}
    assert "file" in blobs
    redis.close()


def test_the_guide_works_as_written(stack: Running, tmp_path: Path) -> None:
    guide = Path(__file__).parents[2] / "docs" / "guides" / "openai.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    program = tmp_path / "guide.py"
    program.write_text("".join(blocks), encoding="utf-8")
    env = os.environ | {"URL": stack.url, "KEY": stack.key, "MODEL": "fake"}
    done = subprocess.run([sys.executable, program], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line.partition(" ")[0] for line in printed] == ["[FAKE", "clause-0", "clause-1"]


def test_gateway_and_workers_killed_over_a_batch_cost_no_line(stack: Running, client: openai.OpenAI) -> None:
    rows = [request(f"line {number}", max_tokens=24) for number in range(200)]
    batch = started(client, rows)

    def now() -> Batch | None:
        stack.stack.watch()
        try:
            return client.batches.retrieve(batch.id)
        except openai.APIError:  # the gateway is not back yet
            return None

    def answered() -> int:
        found = now()
        return found.request_counts.completed if found and found.request_counts else 0

    wait_until(lambda: answered() >= 20, 60, "some lines")
    workers = [worker["pid"] for worker in stack.http.get("/v1/workers").json()["data"]]
    gateway = [child.pid for child in stack.stack._all() if child.name == "gateway" and child.pid]
    for pid in (*workers, *gateway):
        os.kill(pid, signal.SIGKILL)
    done: Batch = wait_until(lambda: (found := now()) and found.status in ENDS and found, 90, "the batch")
    assert done.status == "completed"
    found = rows_of(client, done.output_file_id)
    assert [row["custom_id"] for row in found] == [row["custom_id"] for row in rows]
