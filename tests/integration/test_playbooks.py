"""A firm's own playbooks through the running stack: kept by version, given to jobs, tested, compared, removed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from gateway.stack.valkey import reachable_settings
from services.access import Access
from services.blobs import Blobs
from services.errors import Conflict, NotFound
from services.keys import Keys
from services.lifecycle import Lifecycle
from services.playbook_store import PlaybookStore
from services.playbooks import INCLUDED, default_playbook, included_playbook, included_text, load_playbook
from services.redis_client import connect
from services.settings import Settings
from tests.integration.conftest import Running
from tests.integration.test_cli import Shell
from tests.integration.test_gateway import problem

GUIDE = Path(__file__).parents[2] / "docs" / "playbooks.md"
LEASE = b"""LEASE

The Tenant may freely sublet the premises.

Either party may terminate this lease on three (3) months' notice.

This lease is governed by the laws of Bavaria.
"""


def playbook(name: str, term: str = "premises", most: int = 60) -> bytes:
    return f"""\
name: {name}
title: About {term}
categories:
  - {{id: thing, title: Thing, description: It., weight: 0.5, literals: [{term}]}}
  - {{id: notice, title: Notice, kind: anchor, weight: 0, literals: [notice]}}
rules:
  - {{id: short, title: Short, kind: limit, category: notice, severity: high, at_most: {most} days, reason: Why.}}
""".encode()


@pytest.fixture
def store(settings: Settings, lifecycle: Lifecycle) -> PlaybookStore:
    return PlaybookStore(lifecycle.client, lifecycle.keys, Blobs(settings.data_dir))


@pytest.fixture
def again(settings: Settings, lifecycle: Lifecycle) -> Callable[[], PlaybookStore]:
    """Another process's store."""
    return lambda: PlaybookStore(lifecycle.client, lifecycle.keys, Blobs(settings.data_dir))


def test_a_version_is_its_content_and_the_last_upload_is_the_latest(store: PlaybookStore) -> None:
    first, new = store.upload("acme", playbook("mine"))
    assert new
    assert first.version == load_playbook(playbook("mine")).version
    same, new = store.upload("acme", b"# a comment\n" + playbook("mine"))
    assert (same, new) == (first, False)
    second, _ = store.upload("acme", playbook("mine", "garden"))
    assert store.find("acme", "mine") == second
    assert [item.version for item in store.versions("acme", "mine")] == [second.version, first.version]
    assert store.find("acme", first.version[:8]) == first
    assert store.text("acme", first).encode() == playbook("mine")
    store.upload("acme", playbook("mine"))
    assert store.find("acme", "mine").version == first.version
    assert [item.name for item in store.list("acme")] == [*INCLUDED, "mine"]


def test_no_tenant_sees_anothers(store: PlaybookStore) -> None:
    version = store.upload("acme", playbook("mine"))[0].version
    assert [item.name for item in store.list("other")] == list(INCLUDED)
    for reference in ("mine", version, version[:8]):
        with pytest.raises(NotFound):
            store.pin("other", reference)
    with pytest.raises(NotFound):
        store.read("other", version)


def test_what_is_removed_is_not_found_and_what_was_given_out_is_read(
    store: PlaybookStore, again: Callable[[], PlaybookStore]
) -> None:
    store.upload("acme", playbook("mine"))
    pinned = store.pin("acme", "mine")
    store.remove("acme", "mine")
    for reference in ("mine", pinned):
        with pytest.raises(NotFound):
            store.find("acme", reference)
    with pytest.raises(NotFound):
        store.remove("acme", "mine")
    assert again().read("acme", pinned) == load_playbook(playbook("mine"))


def test_the_playbook_that_comes_along_is_kept_as_it_was_given(
    store: PlaybookStore, again: Callable[[], PlaybookStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = store.pin("acme", "default")
    following = load_playbook(
        included_text("default").replace("title: Commercial contracts", "title: The next release", 1)
    )
    monkeypatch.setattr("services.playbook_store.included_playbook", lambda name: following)
    assert again().find("acme", "default").version == following.version != pinned
    assert again().read("acme", pinned) == default_playbook()
    assert [item.version for item in again().versions("acme", "default")] == [pinned, following.version]


@pytest.mark.parametrize("name", INCLUDED)
def test_a_playbook_that_comes_along_is_listed_and_nobody_takes_its_name(store: PlaybookStore, name: str) -> None:
    assert store.read("acme", store.pin("acme", name)) == included_playbook(name)
    assert load_playbook(store.text("acme", store.find("acme", name))) == included_playbook(name)
    for refused in (lambda: store.upload("acme", playbook(name)), lambda: store.remove("acme", name)):
        with pytest.raises(Conflict) as caught:
            refused()
        assert caught.value.code == "playbook_reserved"


def test_a_review_by_the_nda_playbook_answers_with_evidence(fake_stack: Running) -> None:
    text = (
        b"MUTUAL NDA\n\nThe obligations under this Agreement survive its termination.\n\nThe Recipient may keep it.\n"
    )
    document = fake_stack.upload(text).json()["id"]
    review = fake_stack.finished(fake_stack.submit(type="review", document=document, playbook="nda")["id"])["result"]
    rules = {rule["id"]: rule for rule in review["rules"]}
    assert set(rules) == {rule.id for rule in included_playbook("nda").rules}
    (span,) = rules["obligations_survive"]["spans"]
    assert rules["obligations_survive"]["outcome"] == "met"
    assert text.decode()[span["start"] : span["end"]] == "The obligations under this Agreement survive its termination."
    assert rules["notice_of_compulsion"]["outcome"] == "breached"


def test_a_job_keeps_the_version_that_it_was_given(fake_stack: Running) -> None:
    http = fake_stack.http
    first = http.post("/v1/playbooks", content=playbook("pinned"))
    assert (first.status_code, first.headers["location"]) == (201, "/v1/playbooks/pinned")
    document = fake_stack.upload(LEASE).json()["id"]
    later = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    waits = fake_stack.submit(type="review", document=document, playbook="pinned", not_before=later)["id"]
    second = http.post("/v1/playbooks", content=playbook("pinned", "lease", 120)).json()
    now = fake_stack.submit(type="review", document=document, playbook="pinned")["id"]
    assert http.delete("/v1/playbooks/pinned").status_code == 204
    refused = http.post("/v1/jobs", json={"type": "review", "document": document, "playbook": second["version"]})
    problem(refused, 422, "playbook_unknown")
    for job, version, clauses, outcome in (
        (now, second["version"], {"lease"}, "met"),
        (waits, first.json()["version"], {"premises"}, "breached"),
    ):
        result = fake_stack.finished(job)["result"]
        assert result["provenance"]["playbook"] == {"name": "pinned", "sha256": version}
        found = {item["text"].lower() for item in result["findings"] if item["category"] == "Thing"}
        assert found == clauses
        (rule,) = result["rules"]
        assert (rule["outcome"], rule["spans"][0]["text"]) == (outcome, "three (3) months' notice")
        share = sum(part["share"] for part in result["risk"]["reasons"] if part["of"] == "rule")
        assert share == (pytest.approx(1 / 1.5, abs=1e-4) if outcome == "breached" else 0)


def test_a_run_takes_a_playbook(fake_stack: Running) -> None:
    version = fake_stack.http.post("/v1/playbooks", content=playbook("for-runs")).json()["version"]
    document = fake_stack.upload(LEASE + b"for a run").json()["id"]
    body = {"type": "analyze", "documents": [document], "playbook": "for-runs"}
    run = fake_stack.http.post("/v1/runs", json=body).json()["id"]
    with fake_stack.http.stream("GET", f"/v1/runs/{run}/events", timeout=60) as answer:
        assert "succeeded" in "".join(answer.iter_text())
    line = json.loads(fake_stack.http.get(f"/v1/runs/{run}/results").text)
    assert line["result"]["provenance"]["playbook"]["sha256"] == version
    table = fake_stack.http.get(f"/v1/runs/{run}/results", params={"format": "csv"}).text.splitlines()
    assert "breached" in table[0].split(",")
    assert "Short" in table[1].split(",")


def test_the_guides_example_loads_and_finds_what_it_says(fake_stack: Running) -> None:
    text = re.search(r"```yaml\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert text
    check = fake_stack.http.post("/v1/playbooks/validate", content=text[1].encode()).json()
    assert (check["name"], check["categories"], check["rules"]) == ("leases", 4, 4)
    document = fake_stack.upload(LEASE).json()["id"]
    key = {"Idempotency-Key": "test-once"}
    body = {"text": text[1], "document": document}
    answer = fake_stack.http.post("/v1/playbooks/test", json=body, headers=key)
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/jobs/{answer.json()['id']}")
    again = fake_stack.http.post("/v1/playbooks/test", json=body, headers=key)
    assert again.json()["id"] == answer.json()["id"]
    other = fake_stack.http.post("/v1/playbooks/test", json=body | {"text": text[1] + "\n# other"}, headers=key)
    assert other.status_code == 422
    result = fake_stack.finished(answer.json()["id"])["result"]
    assert {rule["id"]: rule["outcome"] for rule in result["rules"]} == dict.fromkeys(
        ["rent_is_reviewed", "no_free_subletting", "notice_is_six_months", "law_is_ours"], "breached"
    )
    shown = {rule["id"]: [span["text"] for span in rule["spans"]] for rule in result["rules"]}
    assert shown["no_free_subletting"] == ["The Tenant may freely sublet the premises."]
    assert shown["notice_is_six_months"] == ["terminate this lease on three (3) months' notice"]
    assert [item["category"] for item in result["missing"]] == ["Rent review"]
    assert sum(part["share"] for part in result["risk"]["reasons"]) == pytest.approx(result["risk"]["score"], abs=1e-3)
    problem(fake_stack.http.get("/v1/playbooks/leases"), 404, "playbook_unknown")


def test_what_is_wrong_is_refused_with_line_and_reason(fake_stack: Running) -> None:
    bad = playbook("bad").replace(b"[notice]", b"[notice, notice]")
    for path in ("/v1/playbooks", "/v1/playbooks/validate"):
        body = problem(fake_stack.http.post(path, content=bad), 422, "playbook_invalid")
        assert body["detail"] == "line 5: the term `notice` stands twice in this category"
        problem(fake_stack.http.post(path, content=b""), 422, "playbook_invalid")
    document = fake_stack.upload(LEASE).json()["id"]
    for body, status, code in (
        ({"document": document, "text": bad.decode()}, 422, "playbook_invalid"),
        ({"document": document, "text": "x", "playbook": "default"}, 422, "playbook_ambiguous"),
        ({"document": document, "playbook": "nobodys"}, 422, "playbook_unknown"),
        ({"document": "doc_none"}, 404, "document_unknown"),
    ):
        problem(fake_stack.http.post("/v1/playbooks/test", json=body), status, code)
    problem(fake_stack.http.delete("/v1/playbooks/default"), 409, "playbook_reserved")
    problem(fake_stack.http.get("/v1/playbooks/default/diff"), 422, "playbook_version_first")
    problem(fake_stack.http.post("/v1/playbooks", content=playbook("default")), 409, "playbook_reserved")


def test_scopes_and_tenants_hold(fake_stack: Running) -> None:
    access = Access(connect(reachable_settings(fake_stack.settings)), Keys(fake_stack.settings.prefix))
    fake_stack.http.post("/v1/playbooks", content=playbook("ours"))
    secret = access.create("reader", tenant="elsewhere", scopes=("read",))
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=fake_stack.url, headers=headers, trust_env=False) as reader:
        assert [view["name"] for view in reader.get("/v1/playbooks").json()["data"]] == list(INCLUDED)
        problem(reader.get("/v1/playbooks/ours"), 404, "playbook_unknown")
        problem(reader.post("/v1/playbooks", content=playbook("ours")), 403, "forbidden")
        problem(reader.delete("/v1/playbooks/ours"), 403, "forbidden")
        assert reader.post("/v1/playbooks/validate", content=playbook("ours")).status_code == 200
    problem(httpx.get(f"{fake_stack.url}/v1/playbooks", trust_env=False), 401, "unauthorized")


def test_the_command_line_carries_a_playbook_from_file_to_review(fake_stack: Running, tmp_path: Path) -> None:
    shell = Shell(CASEMILL_DATA_DIR=str(fake_stack.settings.data_dir))
    file, lease = tmp_path / "cli.yaml", tmp_path / "lease.txt"
    file.write_bytes(playbook("cli"))
    lease.write_bytes(LEASE)
    assert "2 categories, 2 terms, 1 rules" in shell("playbooks", "validate", str(file))
    tested = shell("playbooks", "test", str(file), str(lease))
    assert "breached  high    Short" in tested
    assert "“three (3) months”: the limit is at most 60 days" in tested
    assert "playbook_unknown" in shell("playbooks", "show", "cli", status=1)
    assert shell.json("playbooks", "upload", str(file))["created"] is True
    assert shell.json("playbooks", "upload", str(file))["created"] is False
    assert shell("playbooks", "show", "cli").startswith(playbook("cli").decode())
    file.write_bytes(playbook("cli", "lease", 120))
    compared = shell("playbooks", "diff", "cli", str(file))
    assert '- "premises"' in compared
    assert "at_most: 60 days → 120 days" in compared
    reviewed = shell("review", "--playbook", "cli", str(lease))
    assert reviewed.index("breached  high    Short") < reviewed.index("Clauses (")
    assert "Playbook cli" in reviewed
    names = [line.split("\t")[0] for line in shell("playbooks", "list").splitlines()]
    assert {*INCLUDED, "cli"} <= set(names)
    assert "removed cli" in shell("playbooks", "remove", "cli")
    file.write_text("name: x\ncategories:\n\t- a\n")
    assert "line 3" in shell("playbooks", "validate", str(file), status=1)
