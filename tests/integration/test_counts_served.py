"""Counts over HTTP and the command line, by real workers: what they keep until something is erased, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.stack.valkey import reachable_settings
from services.access import Access
from services.jobs import Priority
from services.keys import Keys
from services.redis_client import connect
from shaders.runtime import Runtime
from tests.conftest import wait_until
from tests.integration.conftest import Running, running
from tests.integration.test_cli import Shell
from tests.integration.test_counts import FOUND, LEASE, LETTER, NOTHING, PLAYBOOK
from tests.integration.test_gateway import problem


def upload(stack: Running, text: str, name: str, matter: str) -> str:
    answer = stack.http.post(
        "/v1/documents", params={"name": name, "matter": matter, "read": "false"}, content=text.encode()
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_the_route_the_job_type_and_the_verb(fake_stack: Running) -> None:
    stored = fake_stack.http.post("/v1/playbooks", content=PLAYBOOK.encode()).json()
    lease = upload(fake_stack, LEASE, "lease.txt", "counts")
    letter = upload(fake_stack, LETTER, "letter.txt", "counts")
    headers = {"Idempotency-Key": "counts"}
    body = {"matter": "counts", "playbook": "lease", "device": "cpu"}
    answer = fake_stack.http.post("/v1/counts", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["type"], answer.headers["location"]) == ("count", f"/v1/jobs/{job['id']}")
    assert fake_stack.http.post("/v1/counts", json=body, headers=headers).json()["id"] == job["id"]
    done = fake_stack.finished(job["id"])
    assert done["state"] == "succeeded", done["problem"]
    assert [(row["document"], row["findings"]) for row in done["result"]["documents"]] == [(lease, 4), (letter, 4)]
    assert done["result"]["playbook"]["sha256"] == stored["version"]
    progress = [data for _, name, data in fake_stack.events(job["id"]) if name == "progress"]
    assert progress[-1] == {"documents": 2, "total": 2}
    again = fake_stack.submit(type="count", playbook="lease", input={"documents": [letter]})
    assert [row["counts"] for row in fake_stack.finished(again["id"])["result"]["documents"]] == [FOUND["letter.txt"]]
    shell = Shell(CASEMILL_DATA_DIR=str(fake_stack.settings.data_dir))
    printed = [line.split("\t") for line in shell("count", "counts", "--playbook", "lease").splitlines()]
    assert printed == [
        [document, name, category, str(findings)]
        for document, name in ((lease, "lease.txt"), (letter, "letter.txt"))
        for category, findings in FOUND[name].items()
    ]
    assert shell.json("count", "counts", "--playbook", "lease")["result"]["counted"] == 2
    assert "matter_unknown" in shell("count", "nowhere", status=1)
    assert fake_stack.http.delete(f"/v1/documents/{lease}").status_code == 204
    gone = fake_stack.job(job["id"])
    assert (gone["result"], gone["problem"]["code"]) == (None, "document_erased")


def test_a_worker_keeps_the_texts_until_something_is_erased(
    tmp_path: Path, gpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASEMILL_ADAPTER", gpu.name)
    with running(tmp_path / "data") as stack:
        other = upload(stack, NOTHING, "nothing.txt", "other")
        for name, text in (("lease.txt", LEASE), ("letter.txt", LETTER)):
            upload(stack, text, name, "counts")

        def counted(playbook: str, **asked: str) -> dict[str, Any]:
            job = stack.http.post("/v1/counts", json={"matter": "counts", "playbook": playbook} | asked).json()
            return stack.finished(job["id"])["result"]

        first, second = counted("default"), counted("nda")
        assert [result["engine"] for result in (first, second)] == [gpu.name] * 2
        assert counted("default", device="cpu")["engine"] != gpu.name
        assert [result["resident"] for result in (first, second)] == [False, True]
        assert stack.http.delete(f"/v1/documents/{other}").status_code == 204
        wait_until(lambda: "erasure.done" in stack.http.get("/v1/audit").text, 60, "the end of the erasure")
        assert not counted("default")["resident"]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({}, 422, "documents_required"),
        ({"matter": "empty"}, 404, "matter_unknown"),
        ({"matter": "../etc"}, 422, "name_invalid"),
        ({"documents": ["doc_" + "0" * 64]}, 404, "document_unknown"),
        ({"documents": []}, 422, "input_invalid"),
        ({"matter": "{matter}", "playbook": "nobodys"}, 422, "playbook_unknown"),
        ({"matter": "{matter}", "device": "gpu"}, 422, "device_unavailable"),
        ({"matter": "{matter}", "device": "tpu"}, 422, "device_unknown"),
        ({"matter": "{matter}", "colour": "red"}, 422, "request_invalid"),
    ],
)
def test_a_bad_request_gets_a_problem(fake_stack: Running, change: dict[str, Any], status: int, code: str) -> None:
    if change.get("matter") == "{matter}":
        upload(fake_stack, NOTHING, "nothing.txt", "counts-2")
        change = change | {"matter": "counts-2"}
    problem(fake_stack.http.post("/v1/counts", json=change), status, code)


def test_a_run_and_a_single_document_are_refused(fake_stack: Running) -> None:
    document = fake_stack.upload(LEASE.encode()).json()["id"]
    problem(fake_stack.http.post("/v1/runs", json={"type": "count", "documents": [document]}), 422, "type_unknown")
    problem(fake_stack.http.post("/v1/jobs", json={"type": "count", "document": document}), 422, "input_invalid")


def test_another_tenants_documents_are_unknown(fake_stack: Running) -> None:
    mine = upload(fake_stack, LEASE, "lease.txt", "counts-3")
    client = connect(reachable_settings(fake_stack.settings))
    access = Access(client, Keys(fake_stack.settings.prefix))
    rival = access.create("c", tenant="rival", scopes=("read", "submit"), ceiling=Priority.NORMAL)
    with httpx.Client(base_url=fake_stack.url, trust_env=False, headers={"Authorization": f"Bearer {rival}"}) as http:
        problem(http.post("/v1/counts", json={"documents": [mine]}), 404, "document_unknown")
        problem(http.post("/v1/counts", json={"matter": "counts-3"}), 404, "matter_unknown")
    client.close()
