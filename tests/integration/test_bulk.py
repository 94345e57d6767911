"""Bulk runs and schedules through a whole stack: HTTP, the command line, results while it runs."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from gateway.stack.valkey import reachable_settings
from services.lifecycle import Lifecycle
from tests.conftest import wait_until
from tests.integration.conftest import Running

CLAUSE = "This Agreement shall be governed by the laws of England. Either party may terminate on notice. Contract {}."


def upload(stack: Running, text: str, name: str, matter: str) -> str:
    answer = stack.http.post(
        "/v1/documents", params={"name": name, "matter": matter, "read": "false"}, content=text.encode()
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def create(stack: Running, **body: Any) -> dict[str, Any]:
    answer = stack.http.post("/v1/runs", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/runs/{answer.json()['id']}"
    return answer.json()


def ended(stack: Running, run: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        view = stack.http.get(f"/v1/runs/{run}").json()
        return view if view["state"] in ("succeeded", "failed", "cancelled", "expired") else None

    return wait_until(look, 120, f"the end of {run}")


def results(stack: Running, run: str) -> list[dict[str, Any]]:
    body = stack.http.get(f"/v1/runs/{run}/results").text
    return [json.loads(line) for line in body.splitlines()]


def casemill(stack: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli.main", *arguments]
    env = os.environ | {"CASEMILL_URL": stack.url, "CASEMILL_KEY": stack.key}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)


def test_a_run_over_a_matter_reports_every_document(fake_stack: Running) -> None:
    for number in range(5):
        upload(fake_stack, CLAUSE.format(number), f"{number}.txt", "bulk-1")
    broken = upload(fake_stack, "%PDF-1.7 nothing", "broken.pdf", "bulk-1")
    run = create(fake_stack, matter="bulk-1", name="first", model="none")
    assert (run["total"], run["sealed"], run["priority"]) == (6, True, "bulk")
    view = ended(fake_stack, run["id"])
    assert (view["state"], view["succeeded"], view["failed"]) == ("failed", 5, 1)
    assert view["problem"]["code"] == "documents_failed"
    rows = results(fake_stack, run["id"])
    assert [row["name"] for row in rows] == ["0.txt", "1.txt", "2.txt", "3.txt", "4.txt", "broken.pdf"]
    assert [row["document"] for row in rows if row["code"]] == [broken]
    assert rows[0]["result"]["document"]["name"] == "0.txt"
    cells = list(csv.DictReader(io.StringIO(fake_stack.http.get(f"/v1/runs/{run['id']}/results?format=csv").text)))
    assert "Governing Law" in cells[0]["clauses"]
    assert cells[5]["problem"] == rows[5]["code"]
    again = ended(fake_stack, create(fake_stack, matter="bulk-1", model="none")["id"])
    assert (again["succeeded"], again["reused"]) == (5, 5), "nothing is computed twice"
    forced = ended(fake_stack, create(fake_stack, matter="bulk-1", model="none", force=True)["id"])
    assert (forced["succeeded"], forced["reused"]) == (5, 0)


def test_a_run_is_followed_by_its_events(fake_stack: Running) -> None:
    ids = [upload(fake_stack, CLAUSE.format(f"e{number}"), f"e{number}.txt", "bulk-2") for number in range(3)]
    run = create(fake_stack, documents=ids, model="none")
    told: list[tuple[str, dict[str, Any]]] = []
    with fake_stack.http.stream("GET", f"/v1/runs/{run['id']}/events", timeout=60) as answer:
        event = ""
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            event = value if name == "event" else event
            if name == "data":
                told.append((event, json.loads(value)))
    assert [name for name, _ in told] == ["waiting", "document", "document", "document", "succeeded"]
    assert {data["name"] for name, data in told if name == "document"} == {"e0.txt", "e1.txt", "e2.txt"}
    assert told[-2][1]["succeeded"] == told[-2][1]["total"] == 3


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "documents_required"),
        ({"matter": "nothing-here"}, 404, "matter_unknown"),
        ({"documents": ["doc_x"]}, 404, "document_unknown"),
        ({"open": True, "type": "generate"}, 422, "type_unknown"),
        ({"open": True, "priority": "urgent"}, 422, "priority_unknown"),
        ({"open": True, "playbook": "mine"}, 422, "playbook_unknown"),
        ({"open": True, "model": "gpt-9"}, 422, "model_unknown"),
        ({"open": True, "not_before": "2030-01-01T00:00:00"}, 422, "time_invalid"),
    ],
)
def test_what_cannot_run_is_refused(fake_stack: Running, body: dict[str, Any], status: int, code: str) -> None:
    before = fake_stack.http.get("/v1/runs").json()["data"]
    answer = fake_stack.http.post("/v1/runs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert fake_stack.http.get("/v1/runs").json()["data"] == before


def test_a_run_is_no_job_and_an_unknown_one_is_not_there(fake_stack: Running) -> None:
    run = create(fake_stack, open=True)
    for path in ("", "/documents", "/events", "/results"):
        assert fake_stack.http.get(f"/v1/runs/run_0{path}").json()["code"] == "run_unknown"
    for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", ""), ("POST", "/retry")):
        answer = fake_stack.http.request(method, f"/v1/jobs/{run['id']}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "job_unknown")
    assert fake_stack.http.get(f"/v1/runs/{run['id']}").json()["state"] == "waiting"
    assert fake_stack.http.delete(f"/v1/runs/{run['id']}").json()["state"] == "cancelled"
    refused = fake_stack.http.post(f"/v1/runs/{run['id']}/documents", json={"documents": ["doc_x"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "run_state")
    assert fake_stack.http.post(f"/v1/runs/{run['id']}/pause").json()["code"] == "run_state"


def test_the_command_line_takes_folders_patterns_and_archives(fake_stack: Running, tmp_path: Path) -> None:
    folder = tmp_path / "room"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text(CLAUSE.format("cli a"))
    (folder / "sub" / "=b.txt").write_text(CLAUSE.format("cli b"))
    (folder / ".hidden").write_text("no")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("deep/c.txt", CLAUSE.format("cli c"))
        archive.writestr("__MACOSX/c.txt", "no")
    out = tmp_path / "out.csv"
    done = casemill(fake_stack, "run", str(folder), str(tmp_path / "*.zip"), "--model", "none", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "3 documents: 3 succeeded" in done.stdout
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["name"] for row in rows] == ["a.txt", "sub/=b.txt", "deep/c.txt"]
    run = done.stdout.split()[0]
    assert run in casemill(fake_stack, "runs", "list").stdout
    shown = json.loads(casemill(fake_stack, "--json", "runs", "show", run).stdout)
    assert shown["state"] == "succeeded"
    again = casemill(fake_stack, "run", str(folder), "--model", "none")
    assert "(2 done before)" in again.stdout
    assert casemill(fake_stack, "runs", "results", run).stdout.count("\n") == 3
    missing = casemill(fake_stack, "run", str(tmp_path / "nowhere"))
    assert missing.returncode == 1 and "documents_required" in missing.stderr


def make_due(stack: Running, schedule: str) -> None:
    """As if a due time of the schedule had just come."""
    lifecycle = Lifecycle(reachable_settings(stack.settings))
    raw: Any = lifecycle.client
    due = int(time.time()) - 1
    raw.hset(lifecycle.keys("schedule", tenant="default", id=schedule), "next", str(due))
    raw.zadd(lifecycle.keys("schedules"), {f"default|{schedule}": due})
    raw.close()


def test_a_schedule_shows_its_next_times_and_fires(fake_stack: Running) -> None:
    upload(fake_stack, CLAUSE.format("scheduled"), "s.txt", "bulk-3")
    added = casemill(
        fake_stack, "--json", "schedule", "add", "nightly", "--matter", "bulk-3", "--cron", "0 22 * * *",
        "--zone", "Europe/London", "--model", "none",
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    view = json.loads(added.stdout)
    assert len(view["next_times"]) == 5
    make_due(fake_stack, view["id"])
    (run,) = wait_until(
        lambda: fake_stack.http.get("/v1/runs", params={"schedule": view["id"]}).json()["data"], 30, "the run"
    )
    assert ended(fake_stack, run["id"])["succeeded"] == 1
    shown = fake_stack.http.get(f"/v1/schedules/{view['id']}").json()
    assert (shown["last_run"], shown["next_times"]) == (run["id"], view["next_times"])
    for body in ({"cron": "bad"}, {"rrule": "FREQ=SECONDLY"}, {}, {"cron": "0 0 * * *", "time_zone": "Nowhere"}):
        answer = fake_stack.http.post("/v1/schedules", json={"name": "x", "run": {"matter": "bulk-3"}} | body)
        assert (answer.status_code, answer.json()["code"]) == (422, "schedule_invalid")
    assert casemill(fake_stack, "schedule", "remove", view["id"]).returncode == 0
    assert view["id"] not in [row["id"] for row in fake_stack.http.get("/v1/schedules").json()["data"]]
