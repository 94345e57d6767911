"""The command line as people and scripts run it: its verbs against a stack, its JSON, its exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

import gateway.cli.client
from casemill import RetryPolicy
from gateway.cli import doctor
from gateway.cli.client import Client
from gateway.cli.work import following
from services.errors import Transient, Unavailable
from services.settings import Settings
from tests.conftest import wait_until
from tests.integration.conftest import Running
from tests.tiny_model import write_tiny_model

CASEMILL = [sys.executable, "-m", "gateway.cli.main"]


class Shell:
    """Runs `casemill` with an environment that points to a stack."""

    def __init__(self, **environment: str) -> None:
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("CASEMILL_")} | environment

    def __call__(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [*CASEMILL, *arguments], env=self.env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stdout + done.stderr

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self("--json", *arguments, status=status).splitlines()[-1])


@pytest.fixture
def shell(fake_stack: Running) -> Shell:
    return Shell(CASEMILL_DATA_DIR=str(fake_stack.settings.data_dir))


def test_submit_watch_jobs_cancel(shell: Shell) -> None:
    job = shell("submit", "generate", "--input", '{"prompt": "hello", "max_tokens": 12}').strip()
    assert job.startswith("job_")
    watched = shell("watch", job)
    assert "FAKE ENGINE" in watched
    shown = json.loads(shell("show", job, "--json"))
    assert shown["result"]["text"].startswith("[FAKE ENGINE")
    listed = [line.split("\t") for line in shell("jobs", "--limit", "200").splitlines()]
    assert next(row for row in listed if row[0] == job)[1:3] == ["generate", "succeeded"]
    assert shell.json("cancel", job)["state"] == "succeeded"
    assert "job_unknown" in shell("watch", "job_none", status=1)


def test_a_dead_job_is_listed_and_run_again(shell: Shell) -> None:
    job = shell("submit", "generate", "--input", json.dumps({"prompt": "word " * 8000})).strip()
    assert "context_exceeded" in shell("watch", job, status=1)
    assert job in shell("dead")
    assert shell("retry", job).strip() in ("queued", "running", "failed")
    assert "context_exceeded" in shell("watch", job, status=1)
    assert "job_unknown" in shell("retry", "job_none", status=1)


def test_review_of_a_good_and_a_bad_file(shell: Shell, tmp_path: Path) -> None:
    good = tmp_path / "good.txt"
    good.write_text("This Agreement shall be governed by the laws of the State of Ohio.")
    (tmp_path / "bad.bin").write_bytes(bytes(range(256)) * 32)
    printed = shell("review", str(good))
    assert "Governing Law" in printed
    assert "not legal advice" in printed
    mixed = shell("--json", "review", str(good), str(tmp_path / "bad.bin"), status=1)
    rows = [json.loads(line) for line in mixed.splitlines() if line.startswith("{")]
    assert rows[0]["job"]["state"] == "succeeded"
    assert rows[1]["problem"]["code"] == "document_type_unknown"


def test_keys_are_made_listed_and_revoked(shell: Shell, fake_stack: Running) -> None:
    secret = shell.json("keys", "create", "for-tests", "--tenant", "acme")["key"]
    key_id = secret.split("_")[1]
    assert key_id in shell("keys", "list")
    assert secret not in shell("keys", "list")
    other = Shell(CASEMILL_URL=fake_stack.url, CASEMILL_KEY=secret)
    assert other("jobs") == ""
    shell("keys", "revoke", key_id)
    assert "unauthorized" in other("jobs", status=1)
    assert shell("keys", "login").startswith(fake_stack.url + "/login?token=")


def test_a_key_for_a_matter_is_rotated_and_the_log_tells(shell: Shell, fake_stack: Running) -> None:
    options = ("--tenant", "walls", "--matter", "M-1", "--requests", "50", "--storage", "1MiB", "--days", "30")
    old = shell.json("keys", "create", "walled", *options)["key"]
    key_id = old.split("_")[1]
    new = shell.json("keys", "rotate", key_id, "--grace-hours", "0")["key"]
    row = shell("keys", "list", "--tenant", "walls").split("\t")
    assert (row[0], row[5], row[6]) == (key_id, "M-1", "never")
    refused = Shell(CASEMILL_URL=fake_stack.url, CASEMILL_KEY=old)
    assert "unauthorized" in refused("jobs", status=1)
    assert Shell(CASEMILL_URL=fake_stack.url, CASEMILL_KEY=new)("jobs") == ""
    entries = [json.loads(line) for line in shell("audit", "export", "--tenant", "walls").splitlines()]
    assert [(entry["actor"], entry["action"]) for entry in entries] == [("local", "key.made"), ("local", "key.rotated")]
    verdict = shell.json("audit", "verify", "--tenant", "walls", "--anchor", entries[0]["hash"])
    assert verdict == {"tenant": "walls", "first": 1, "entries": 2, "head": entries[1]["hash"], "broken": None}
    assert "no entry has the hash" in shell("audit", "verify", "--tenant", "walls", "--anchor", "0" * 64, status=1)
    assert "walls\t1\t2" in shell("audit", "verify")


def test_models_are_added_verified_and_listed(tmp_path: Path) -> None:
    shell = Shell(CASEMILL_DATA_DIR=str(tmp_path / "data"))
    file = write_tiny_model(tmp_path / "tiny.gguf")
    added = shell.json("models", "add", str(file), "--name", "tiny", "--licence", "test")
    assert added["name"] == "tiny"
    assert shell("models", "list").split("\t")[0] == "tiny"
    assert shell.json("models", "verify")["status"] == "verified"
    with file.open("r+b") as stream:
        stream.seek(-8, os.SEEK_END)
        stream.write(b"damaged!")
    assert "model_checksum_mismatch" in shell("models", "verify", "tiny", status=1)
    assert "sha256_required" in shell("models", "add", "https://models.example/m.gguf", status=1)


def test_doctor_names_each_problem_with_its_fix(shell: Shell, tmp_path: Path) -> None:
    checks = {check["name"]: check for check in shell.json("doctor")["checks"]}
    assert checks["gateway"]["state"] == "ok"
    assert checks["redis"]["state"] == "ok"
    assert checks["llama.cpp"]["state"] == "ok"
    installed = shutil.which("tesseract")
    assert checks["ocr"]["state"] == ("ok" if installed else "missing")
    lonely = Shell(
        CASEMILL_DATA_DIR=str(tmp_path), CASEMILL_PORT="1", REDIS_URL="redis://127.0.0.1:1/0",
        CASEMILL_OCR_LANGUAGES="eng+xyz",
    )  # fmt: skip
    checks = {check["name"]: check for check in lonely.json("doctor", status=1)["checks"]}
    assert checks["redis"]["state"] == "broken"
    assert checks["ocr"]["state"] == ("broken" if installed else "missing")
    assert checks["gateway"] | {"detail": ""} == {
        "name": "gateway",
        "state": "missing",
        "detail": "",
        "fix": "casemill up",
    }


def test_without_a_stack_the_fix_is_named(tmp_path: Path) -> None:
    lonely = Shell(CASEMILL_DATA_DIR=str(tmp_path), CASEMILL_PORT="1")
    assert "casemill up" in lonely("jobs", status=1)
    problem = Shell(CASEMILL_DATA_DIR=str(tmp_path), CASEMILL_PORT="1", CASEMILL_KEY="cm_x_y").json("jobs", status=1)
    assert problem["problem"]["code"] == "gateway_away"
    assert "url_invalid" in Shell(CASEMILL_URL="gateway:8700", CASEMILL_KEY="cm_x_y")("jobs", status=1)


def test_a_cancelled_job_is_no_success(shell: Shell, fake_stack: Running, tmp_path: Path) -> None:
    file = tmp_path / "contract.txt"
    file.write_text("This Agreement shall be governed by the laws of the State of Ohio.")
    workers = fake_stack.http.get("/v1/workers").json()["data"]
    paused = psutil.Process(next(worker["pid"] for worker in workers if "generate" in worker["lanes"]))
    command = [*CASEMILL, "review", str(file)]
    paused.suspend()
    try:
        job = shell("submit", "generate", "--input", '{"prompt": "never run"}').strip()
        with subprocess.Popen(
            command, env=shell.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as review:
            rows = wait_until(
                lambda: [
                    row
                    for row in fake_stack.http.get("/v1/jobs", params={"state": "waiting"}).json()["data"]
                    if row["type"] == "review"
                ],
                30,
                "a review that waits for its steps",
            )
            fake_stack.http.delete(f"/v1/jobs/{rows[0]['id']}")
            _, errors = review.communicate(timeout=60)
        assert review.returncode == 1
        assert "[job_cancelled]" in errors
        assert "Traceback" not in errors
        shell("cancel", job)
        assert "[job_cancelled]" in shell("watch", job, status=1)
    finally:
        paused.resume()


def test_doctor_outlives_a_driver_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "HARDWARE_SECONDS", 0.01)
    monkeypatch.delenv("REDIS_URL", raising=False)
    checks = {check.name: check for check in doctor.examine(Settings.model_validate({"data_dir": tmp_path}))}
    assert checks["workers"].state == "broken"
    assert "did not answer" in checks["workers"].detail
    assert "nvidia-smi" in checks["workers"].fix


def test_a_gateway_that_stays_away_does_not_take_the_job_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.cli.client, "_FOLLOWING", RetryPolicy(attempts=2, first=0.01))
    away = Client(Settings.model_validate({"url": "http://127.0.0.1:1", "key": "cm_x_y"}))
    with pytest.raises(Transient, match="`casemill watch job_1` goes on") as raised:
        list(following(away, "job_1"))
    assert raised.value.code == "gateway_away"


def test_a_stream_that_ends_before_its_job_is_followed_on() -> None:
    asked: list[str] = []

    class Interrupting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if not self.path.endswith("/events"):
                job = {"id": "job_1", "type": "generate", "priority": "normal", "created_at": "2031-01-01T00:00:00Z"}
                body = json.dumps(job | {"state": "running" if len(asked) < 3 else "succeeded"}).encode()
            elif self.headers["Last-Event-ID"] == "1-0":
                body = b"id: 2-0\nevent: succeeded\ndata: {}\n\n"
            else:
                away = json.dumps(Unavailable("Redis does not answer; try again", code="redis_away").problem())
                body = b"id: 1-0\nevent: running\ndata: {}\n\nevent: interrupted\ndata: %s\n\n" % away.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Interrupting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            client = Client(Settings.model_validate({"url": url, "key": "cm_x_y"}))
            events = [event for event, _ in client.follow_job("job_1")]
        finally:
            server.shutdown()
            thread.join()
    assert events == ["running", "interrupted", "succeeded"]
    assert asked == ["/v1/jobs/job_1/events", "/v1/jobs/job_1"] * 2
