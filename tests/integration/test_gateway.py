"""The HTTP API of a running stack: what it accepts, what it refuses and how, over the fake engine."""

from __future__ import annotations

import base64
import json
import struct
import threading
from typing import Any

import httpx
import pytest

from tests.conftest import wait_until
from tests.integration.conftest import Running

TEXT = b"This Agreement shall be governed by the laws of the State of Ohio.\n\nSigned by both parties today."


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code), body
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


def count_jobs(stack: Running) -> int:
    return len(stack.http.get("/v1/jobs", params={"limit": 200}).json()["data"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"type": "summon"}, "type_unknown"),
        ({"model": "gpt-17"}, "model_unknown"),
        ({"priority": "asap"}, "priority_unknown"),
        ({"device": "abacus"}, "device_unknown"),
        ({"device": "gpu"}, "device_unavailable"),
        ({"input": {}}, "input_invalid"),
        ({"input": {"prompt": "a\u0000b"}}, "text_invalid"),
        ({"colour": "red"}, "request_invalid"),
        ({"matter": "../etc"}, "name_invalid"),
        ({"type": "review", "input": {}}, "document_required"),
        ({"type": "embed", "input": {"texts": []}}, "input_invalid"),
    ],
)
def test_a_bad_job_gets_a_problem_and_queues_nothing(fake_stack: Running, change: dict[str, Any], code: str) -> None:
    before = count_jobs(fake_stack)
    body = {"type": "generate", "input": {"prompt": "hello"}} | change
    problem(fake_stack.http.post("/v1/jobs", json=body), 422, code)
    assert count_jobs(fake_stack) == before


def test_a_bad_playbook_or_document_is_named(fake_stack: Running) -> None:
    document = fake_stack.upload(TEXT).json()["id"]
    body = {"type": "review", "document": document, "playbook": "mine"}
    problem(fake_stack.http.post("/v1/jobs", json=body), 422, "playbook_unknown")
    body = {"type": "review", "document": "doc_" + "0" * 64}
    problem(fake_stack.http.post("/v1/jobs", json=body), 404, "document_unknown")


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "torn"}])
def test_a_lone_surrogate_is_refused(fake_stack: Running, key: dict[str, str]) -> None:
    body = b'{"type": "generate", "input": {"prompt": "\\ud800"}}'
    headers = {"Content-Type": "application/json"} | key
    problem(fake_stack.http.post("/v1/jobs", content=body, headers=headers), 422, "text_invalid")


@pytest.mark.parametrize(
    "path", ["/v1/jobs", "/v1/models", "/v1/workers", "/metrics", "/docs", "/flower/", "/version", "/"]
)
@pytest.mark.parametrize("key", [None, "cm_0000_1111", "nonsense", "cm_" + "0" * 12 + "_" + "0" * 48])
def test_a_wrong_key_opens_nothing(fake_stack: Running, path: str, key: str | None) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    problem(httpx.get(fake_stack.url + path, headers=headers, trust_env=False), 401, "unauthorized")


def test_a_revoked_key_opens_nothing_and_scopes_hold(fake_stack: Running) -> None:
    from gateway.stack.valkey import reachable_settings
    from services.access import Access
    from services.jobs import Priority
    from services.keys import Keys
    from services.redis_client import connect

    access = Access(connect(reachable_settings(fake_stack.settings)), Keys(fake_stack.settings.prefix))
    secret = access.create("reader", tenant="other", scopes=("read",), ceiling=Priority.NORMAL)
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=fake_stack.url, headers=headers, trust_env=False) as reader:
        assert reader.get("/v1/jobs").json() == {"data": [], "next_cursor": None}
        mine = fake_stack.submit(type="generate", input={"prompt": "x"})["id"]
        problem(reader.get(f"/v1/jobs/{mine}"), 404, "job_unknown")
        problem(reader.post("/v1/jobs", json={"type": "generate", "input": {"prompt": "x"}}), 403, "forbidden")
        problem(reader.get("/flower/"), 403, "forbidden")
        access.revoke(secret.split("_")[1])
        problem(reader.get("/v1/jobs"), 401, "unauthorized")
    modest = access.create("modest", scopes=("submit", "read"), ceiling=Priority.NORMAL)
    body = {"type": "generate", "input": {"prompt": "x"}, "priority": "critical"}
    answer = httpx.post(fake_stack.url + "/v1/jobs", json=body, headers={"Authorization": f"Bearer {modest}"})
    problem(answer, 403, "priority_forbidden")


def test_a_foreign_host_header_is_refused(fake_stack: Running) -> None:
    answer = httpx.get(fake_stack.url + "/livez", headers={"Host": "evil.example"}, trust_env=False)
    assert answer.status_code == 400


def test_a_body_over_the_limit_is_refused_before_it_is_read(fake_stack: Running) -> None:
    big = json.dumps({"type": "generate", "input": {"prompt": "x" * (9 * 2**20)}}).encode()
    headers = {"Content-Type": "application/json"}
    problem(fake_stack.http.post("/v1/jobs", content=big, headers=headers), 413, "payload_too_large")
    chunks = (big[start : start + 65536] for start in range(0, len(big), 65536))
    problem(fake_stack.http.post("/v1/jobs", content=chunks, headers=headers), 413, "payload_too_large")


def test_a_generation_streams_the_text_it_returns(fake_stack: Running) -> None:
    job = fake_stack.submit(type="generate", input={"prompt": "hello", "max_tokens": 20})["id"]
    events = fake_stack.events(job)
    assert [name for _, name, _ in events][:2] == ["queued", "running"]
    assert events[-1][1] == "succeeded"
    text = "".join(data["text"] for _, name, data in events if name == "token")
    assert fake_stack.job(job)["result"]["text"] == text != ""
    resumed = fake_stack.events(job, after=events[2][0])
    assert resumed == events[3:]


def test_an_idempotency_key_makes_one_job(fake_stack: Running) -> None:
    headers = {"Idempotency-Key": "abc"}
    body = {"type": "generate", "input": {"prompt": "once"}}
    first = fake_stack.http.post("/v1/jobs", json=body, headers=headers)
    second = fake_stack.http.post("/v1/jobs", json=body, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    assert first.headers["location"] == f"/v1/jobs/{first.json()['id']}"
    other = {"type": "generate", "input": {"prompt": "twice"}}
    problem(fake_stack.http.post("/v1/jobs", json=other, headers=headers), 422, "idempotency_mismatch")


def test_a_chat_answers_whole_and_streamed_alike(fake_stack: Running) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16, "temperature": 0}
    whole = fake_stack.http.post("/v1/chat/completions", json=body).json()
    assert whole["object"] == "chat.completion"
    assert whole["usage"]["completion_tokens"] > 0
    text, usage, done = "", None, False
    streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
    with fake_stack.http.stream("POST", "/v1/chat/completions", json=streamed) as answer:
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                chunk = json.loads(line.removeprefix("data: "))
                usage = chunk.get("usage") or usage
                text += "".join(choice["delta"].get("content", "") for choice in chunk["choices"])
    assert done
    assert text == whole["choices"][0]["message"]["content"]
    assert usage == whole["usage"]


def test_a_chat_calls_tools_whole_and_streamed_alike(fake_stack: Running) -> None:
    schema = {"type": "object", "properties": {"about": {"enum": ["rent", "term"]}}, "required": ["about"]}
    body = {
        "model": "fake",
        "messages": [{"role": "user", "content": "hello"}],
        "tools": [{"type": "function", "function": {"name": "search", "parameters": schema}}],
        "tool_choice": "required",
    }
    choice = fake_stack.http.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    call = choice["message"]["tool_calls"][0]
    assert (call["type"], call["function"]["name"]) == ("function", "search")
    assert json.loads(call["function"]["arguments"]) == {"about": "rent"}
    deltas: list[dict[str, Any]] = []
    with fake_stack.http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                deltas += [choice["delta"] for choice in json.loads(line.removeprefix("data: "))["choices"]]
    assert not any(delta.get("content") for delta in deltas)
    calls = [called for delta in deltas for called in delta.get("tool_calls", [])]
    assert [called["function"] for called in calls] == [call["function"]]
    body |= {"tool_choice": {"type": "function", "function": {"name": "other"}}}
    problem(fake_stack.http.post("/v1/chat/completions", json=body), 422, "input_invalid")


def test_a_chat_field_that_cannot_be_honoured_is_refused(fake_stack: Running) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "hello"}], "modalities": ["audio"]}
    problem(fake_stack.http.post("/v1/chat/completions", json=body), 422, "request_invalid")
    body = {"model": "none-such", "messages": [{"role": "user", "content": "hello"}]}
    unknown = problem(fake_stack.http.post("/v1/chat/completions", json=body), 404, "model_unknown")
    assert unknown["error"]["message"] == unknown["detail"]


def test_a_client_that_goes_away_cancels_its_chat(fake_stack: Running) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "long"}], "stream": True}
    with fake_stack.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        first = next(line for line in answer.iter_lines() if line.startswith("data: "))
    job = "job_" + json.loads(first.removeprefix("data: "))["id"].removeprefix("chatcmpl-")
    assert fake_stack.finished(job)["state"] in ("cancelled", "succeeded")


def test_embeddings_in_both_encodings(fake_stack: Running) -> None:
    body = {"model": "fake", "input": ["one", "two"]}
    floats = fake_stack.http.post("/v1/embeddings", json=body).json()
    packed = fake_stack.http.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()
    assert [item["index"] for item in floats["data"]] == [0, 1]
    for plain, coded in zip(floats["data"], packed["data"], strict=True):
        raw = base64.b64decode(coded["embedding"])
        assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == plain["embedding"]
        assert abs(sum(value * value for value in plain["embedding"]) - 1) < 1e-5


def test_embeddings_of_fewer_dimensions(fake_stack: Running) -> None:
    body: dict[str, Any] = {"model": "fake", "input": "one clause"}
    whole = fake_stack.http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    short = fake_stack.http.post("/v1/embeddings", json=body | {"dimensions": 8}).json()["data"][0]["embedding"]
    length = sum(value * value for value in whole[:8]) ** 0.5
    assert short == pytest.approx([value / length for value in whole[:8]], abs=1e-6)
    for dimensions in (0, -1, len(whole) + 1, 2**20):
        answer = fake_stack.http.post("/v1/embeddings", json=body | {"dimensions": dimensions})
        assert answer.status_code in (400, 422), answer.text
    answer = fake_stack.http.post("/v1/embeddings", json=body | {"dimensions": len(whole) + 1})
    assert answer.json()["code"] == "dimensions_invalid"
    assert f"1 to {len(whole)}" in answer.json()["detail"]


def test_a_large_prompt_lies_in_the_blob_store(fake_stack: Running) -> None:
    prompt = "word " * 8000
    job = fake_stack.submit(type="generate", input={"prompt": prompt, "max_tokens": 4})["id"]
    view = fake_stack.finished(job)
    assert view["state"] == "failed"
    assert view["problem"]["code"] == "context_exceeded"


def test_documents_and_their_text(fake_stack: Running) -> None:
    answer = fake_stack.upload(TEXT, "note.txt")
    assert answer.status_code == 201
    view = answer.json()
    assert (view["kind"], view["pages"], view["chars"], view["name"]) == ("txt", 1, len(TEXT), "note.txt")
    text = fake_stack.http.get(f"/v1/documents/{view['id']}/text").json()
    assert text["text"] == TEXT.decode()
    again = fake_stack.http.post("/v1/documents", files={"file": ("again.txt", TEXT)})
    assert again.json()["id"] == view["id"]
    assert fake_stack.http.delete(f"/v1/documents/{view['id']}").status_code == 204
    problem(fake_stack.http.get(f"/v1/documents/{view['id']}"), 404, "document_unknown")


def test_a_review_reports_places_that_stand_in_the_text(fake_stack: Running) -> None:
    document = fake_stack.upload(TEXT, "note.txt").json()["id"]
    job = fake_stack.submit(type="review", document=document, priority="high")
    view = fake_stack.finished(job["id"])
    assert view["state"] == "succeeded", view
    assert view["steps"] == ["extract", "scan", "sensitive", "embed", "clauses", "terms", "report"]
    result = view["result"]
    assert any(finding["category"] == "Governing Law" for finding in result["findings"])
    for place in [*result["findings"], *result["clauses"], *result["pii"], *result["privilege"]]:
        assert TEXT.decode()[place["start"] : place["end"]] == place["text"]
    assert result["terms"] == []
    assert result["unsupported_terms"]
    assert "not legal advice" in result["notice"]
    analysis = fake_stack.finished(fake_stack.submit(type="analyze", document=document)["id"])["result"]
    assert analysis["findings"] == result["findings"]
    assert "scan" in analysis["provenance"]["reused"]


def test_cancelling_a_queued_and_an_unknown_job(fake_stack: Running) -> None:
    problem(fake_stack.http.delete("/v1/jobs/job_none"), 404, "job_unknown")
    job = fake_stack.submit(type="generate", input={"prompt": "x"}, priority="bulk")["id"]
    assert fake_stack.http.delete(f"/v1/jobs/{job}").status_code == 202
    assert fake_stack.finished(job)["state"] in ("cancelled", "succeeded")


def test_the_login_link_works_once(fake_stack: Running) -> None:
    from gateway.stack.valkey import reachable_settings
    from services.access import Access
    from services.keys import Keys
    from services.redis_client import connect

    access = Access(connect(reachable_settings(fake_stack.settings)), Keys(fake_stack.settings.prefix))
    link = f"{fake_stack.url}/login?token={access.start_login(fake_stack.key.split('_')[1])}"
    with httpx.Client(trust_env=False) as browser:
        answer = browser.get(link)
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert browser.get(f"{fake_stack.url}/").status_code == 200
    problem(httpx.get(link, trust_env=False), 401, "login_expired")


def test_what_is_alive(fake_stack: Running) -> None:
    ready = fake_stack.http.get("/readyz").json()
    assert ready["ready"]
    assert ready["checks"]["redis"]["durable"] == "yes"
    assert set(ready["checks"]["workers"]["lanes"]) == {"generate", "embed", "analyze", "extract", "deliver"}
    assert httpx.get(fake_stack.url + "/readyz", trust_env=False).json() == {"ready": True}
    lanes = fake_stack.http.get("/v1/lanes").json()["data"]
    assert {lane["lane"]: lane["workers"] for lane in lanes}["generate"] == 1
    assert {model["id"] for model in fake_stack.http.get("/v1/models").json()["data"]} == {"fake"}
    metrics = fake_stack.http.get("/metrics").text
    assert "casemill_jobs_submitted_total" in metrics
    assert fake_stack.http.get("/openapi.json").json()["info"]["title"] == "Casemill"


def test_flower_shows_the_running_job_by_its_id(fake_stack: Running) -> None:
    seen: list[str] = []
    stop = threading.Event()

    def look() -> None:
        with httpx.Client(
            base_url=fake_stack.url, auth=("any", fake_stack.key), timeout=30, trust_env=False
        ) as browser:
            while not stop.is_set():
                answer = browser.get("/flower/tasks")
                assert answer.status_code == 200
                table = browser.post(
                    "/flower/tasks/datatable",
                    data={
                        "draw": 1,
                        "start": 0,
                        "length": 50,
                        "search[value]": "",
                        "order[0][column]": 7,
                        "order[0][dir]": "desc",
                        "columns[7][data]": "started",
                    },
                )
                seen.append(table.text)
                stop.wait(0.3)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        job = fake_stack.submit(type="generate", input={"prompt": "show me", "max_tokens": 24})["id"]
        wait_until(lambda: any(job in text for text in seen), 30, "the job id in Flower's table")
    finally:
        stop.set()
        watcher.join()


def test_a_request_id_stands_in_the_workers_log(fake_stack: Running) -> None:
    body = {"type": "generate", "input": {"prompt": "x"}}
    answer = fake_stack.http.post("/v1/jobs", json=body, headers={"X-Request-ID": "case-99"})
    job = fake_stack.finished(answer.json()["id"])
    assert job["request_id"] == "case-99"
    logs = list((fake_stack.settings.data_dir / "logs").glob("*.log"))
    lines = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines() if job["id"] in line]
    assert any("request case-99" in line for line in lines)
