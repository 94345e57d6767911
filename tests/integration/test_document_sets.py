"""Search and comparison over HTTP and the command line, with real workers and stores; the vectors are a hash's."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway.stack.valkey import reachable_settings
from services.access import Access
from services.jobs import Priority
from services.keys import Keys
from services.redis_client import connect
from tests.integration.conftest import Running
from tests.integration.test_cli import Shell

FEES = "The client pays 100 EUR a month to the firm, on the first day."
LAW = "German law governs this agreement and all disputes that come of it."
NOTICE = "Notices are sent in writing to the address of the party — § 7 𝔄."
LEASE = f"{FEES}\n\n{LAW}\n\n{NOTICE}".encode()
BANK = "\n".join(
    json.dumps({"id": name, "text": text}) for name, text in (("fee", FEES), ("short", "Pay now."), ("law", LAW))
).encode()


def upload(stack: Running, data: bytes, name: str, **parameters: str) -> str:
    answer = stack.http.post("/v1/documents", params={"name": name} | parameters, content=data, timeout=90)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def result(stack: Running, path: str, **body: Any) -> dict[str, Any]:
    answer = stack.http.post(path, json=body)
    assert answer.status_code == 202, answer.text
    job = stack.finished(answer.json()["id"])
    assert job["state"] == "succeeded", job["problem"]
    return job["result"]


def test_similar_clauses_of_a_matter_with_their_places(fake_stack: Running) -> None:
    lease = upload(fake_stack, LEASE, "lease.txt", matter="search-1")
    upload(fake_stack, LEASE + b"\n\nAnd one more clause of this lease.", "lease-2.txt", matter="search-1")
    found = result(fake_stack, "/v1/search", queries=[NOTICE, LAW], matter="search-1", mode="similar", k=3)
    assert found["searched"] == {"documents": 2, "clauses": 7}
    assert (found["skipped"], found["engine"]) == ([], "numpy")
    text = LEASE.decode()
    for query, asked in zip(found["queries"], (NOTICE, LAW), strict=True):
        assert query["query"] == asked
        first, second, third = query["hits"]
        assert first["document"] == lease, "of equal scores the document that was uploaded first"
        assert (first["text"], first["score"], first["page"]) == (asked, 1.0, 1)
        assert text[first["start"] : first["end"]] == asked
        assert (second["name"], second["score"]) == ("lease-2.txt", 1.0)
        assert third["score"] < 0.9


def test_a_reviewed_document_is_not_embedded_again(fake_stack: Running) -> None:
    lease = upload(fake_stack, LEASE + b"\n\nA clause that no other lease has.", "reviewed.txt")
    job = fake_stack.finished(fake_stack.submit(type="review", document=lease, model="none")["id"])
    assert job["state"] == "succeeded"
    assert result(fake_stack, "/v1/search", query=LAW, documents=[lease])["computed"] == 0
    other = upload(fake_stack, b"A clause of a document that nobody has read so far.", "new.txt")
    assert result(fake_stack, "/v1/search", query=LAW, documents=[lease, other])["computed"] == 1
    assert result(fake_stack, "/v1/search", query=LAW, documents=[lease, other])["computed"] == 0


def test_a_clause_bank_names_its_clauses(fake_stack: Running) -> None:
    bank = upload(fake_stack, BANK, "bank.jsonl")
    found = result(fake_stack, "/v1/search", query="law that governs disputes", documents=[bank], k=10)
    hits = found["queries"][0]["hits"]
    assert len(hits) == 3, "k is more than there are clauses"
    best = max(hits, key=lambda hit: hit["bm25"])
    assert (best["clause"], best["text"]) == ("law", LAW)
    assert {hit["clause"] for hit in hits if not hit["bm25"]} == {"fee", "short"}
    assert found["documents"] == [bank]


def test_what_cannot_be_read_is_named_and_the_rest_is_searched(fake_stack: Running) -> None:
    lease = upload(fake_stack, LEASE, "lease.txt")
    params = {"name": "photo.png", "read": "false"}
    photo = fake_stack.http.post("/v1/documents", params=params, content=b"\x89PNG\r\n\x1a\n" + b"\0" * 90).json()["id"]
    found = result(fake_stack, "/v1/search", query=LAW, documents=[photo, lease])
    assert [(item["document"], item["code"]) for item in found["skipped"]] == [(photo, "document_type_unsupported")]
    assert found["searched"] == {"documents": 1, "clauses": 3}


def test_comparison_over_http_and_its_erasure(fake_stack: Running) -> None:
    before = upload(fake_stack, LEASE, "before.txt")
    after = upload(fake_stack, LEASE.replace(b"100", b"250") + b"\n\nNothing else is agreed between them.", "after.txt")
    answer = fake_stack.http.post("/v1/compare", json={"before": before, "after": after})
    job = fake_stack.finished(answer.json()["id"])
    counts = job["result"]["counts"]
    assert counts == {"unchanged": 2, "changed": 1, "moved": 0, "added": 1, "removed": 0}
    word = job["result"]["changes"][0]["words"][0]
    assert LEASE.decode()[slice(*word["before"])] == "100"
    assert fake_stack.http.delete(f"/v1/documents/{after}").status_code == 204
    gone = fake_stack.job(job["id"])
    assert (gone["result"], gone["problem"]["code"]) == (None, "document_erased"), "its text went with the document"


def test_the_same_key_answers_the_same_job(fake_stack: Running) -> None:
    lease = upload(fake_stack, LEASE, "lease.txt")
    headers = {"Idempotency-Key": "search-once"}
    body = {"query": LAW, "documents": [lease]}
    first, second = (fake_stack.http.post("/v1/search", json=body, headers=headers).json()["id"] for _ in range(2))
    assert first == second
    other = fake_stack.http.post("/v1/search", json=body | {"k": 3}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("search", {"query": "x", "documents": ["doc_none"]}, 404, "document_unknown"),
        ("search", {"query": "x", "matter": "nothing-here"}, 404, "matter_unknown"),
        ("search", {"query": "x"}, 422, "input_invalid"),
        ("search", {"query": " ", "matter": "m"}, 422, "input_invalid"),
        ("search", {"matter": "m"}, 422, "input_invalid"),
        ("search", {"query": "x", "matter": "m", "k": 0}, 422, "input_invalid"),
        ("search", {"query": "x", "matter": "m", "mode": "best"}, 422, "input_invalid"),
        ("search", {"query": "x\0", "matter": "m"}, 422, "text_invalid"),
        ("search", {"query": "x", "matter": "a b"}, 422, "name_invalid"),
        ("search", {"query": "x", "matter": "m", "priority": "now"}, 422, "priority_unknown"),
        ("compare", {"before": "doc_none", "after": "doc_none"}, 404, "document_unknown"),
        ("jobs", {"type": "search", "document": "doc_none"}, 422, "input_invalid"),
        ("jobs", {"type": "compare", "input": {"before": "x"}}, 422, "input_invalid"),
        ("runs", {"type": "search", "open": True}, 422, "type_unknown"),
    ],
)
def test_errors_by_code(fake_stack: Running, path: str, body: dict[str, Any], status: int, code: str) -> None:
    answer = fake_stack.http.post(f"/v1/{path}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_another_tenants_documents_are_unknown(fake_stack: Running) -> None:
    mine = upload(fake_stack, LEASE + b"\n\nA clause between us and ourselves.", "lease.txt", matter="ours-alone")
    result(fake_stack, "/v1/search", query=LAW, matter="ours-alone")
    client = connect(reachable_settings(fake_stack.settings))
    access = Access(client, Keys(fake_stack.settings.prefix))
    secret = access.create("s", tenant="rival", scopes=("read", "submit"), ceiling=Priority.NORMAL)
    client.close()
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=fake_stack.url, headers=headers, trust_env=False) as rival:
        answers = [
            rival.post("/v1/search", json={"query": LAW, "documents": [mine]}),
            rival.post("/v1/search", json={"query": LAW, "matter": "ours-alone"}),
            rival.post("/v1/compare", json={"before": mine, "after": mine}),
        ]
    assert [answer.json()["code"] for answer in answers] == ["document_unknown", "matter_unknown", "document_unknown"]


def test_the_command_line(fake_stack: Running, tmp_path: Any) -> None:
    shell = Shell(CASEMILL_DATA_DIR=str(fake_stack.settings.data_dir))
    upload(fake_stack, LEASE + b"\n\nA clause that the shell looks for.", "lease.txt", matter="shell-1")
    shown = shell("search", LAW, "--matter", "shell-1", "--mode", "similar")
    assert shown.splitlines()[0] == "1.000  lease.txt, p. 1"
    (tmp_path / "bank.jsonl").write_bytes(BANK)
    found = shell.json("search", LAW, "--document", str(tmp_path / "bank.jsonl"), "-k", "1", "--mode", "similar")
    assert found["result"]["queries"][0]["hits"][0]["clause"] == "law"
    (tmp_path / "a.txt").write_bytes(LEASE)
    (tmp_path / "b.txt").write_bytes(LEASE.replace(b"German", b"Danish") + b"\n\nNothing else is agreed between them.")
    shown = shell("compare", str(tmp_path / "a.txt"), str(tmp_path / "b.txt"))
    assert "2 unchanged, 1 changed, 0 moved, 1 added, 0 removed" in shown
    assert "[-German-]  {+Danish+}" in shown
    assert "+ added, p. 1\n  “Nothing else" in shown
    assert "document_unknown" in shell("compare", "doc_none", str(tmp_path / "a.txt"), status=1)
