"""Near-duplicates of a matter: what is kept and reused, what is reported, and the route and the verb on a stack."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.blobs import Blobs
from services.documents import Documents
from services.errors import NotFound, Transient
from services.jobs import Claim, Lane, Priority
from services.lifecycle import Lifecycle
from services.settings import Settings
from shaders.runtime import Runtime
from tests.integration.conftest import Running
from tests.integration.test_cli import Shell
from tests.integration.test_gateway import problem
from workers.execution import Execution
from workers.tasks import duplicates as module
from workers.tasks.duplicates import find_near_duplicates
from workers.toolbox import Toolbox

WORDS = [f"word{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(200)]
LEASE = " ".join(WORDS)
LEASE_2 = LEASE.replace("wordca", "other")
DATED = LEASE.replace("wordca", "the 1st of 10,000")
DATED_2 = LEASE.replace("wordca", "the 23rd of 7")
LETTER = " ".join(reversed(WORDS))
SIMILARITY = round(191 / 201, 6)


@dataclass
class Office:
    """Compares documents by the task itself, on real stores; ``events`` are the progress of the last job."""

    settings: Settings
    documents: Documents
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def toolbox(self) -> Toolbox:
        nothing = cast(Any, None)
        return Toolbox(self.settings, self.documents.blobs, self.documents, nothing, nothing, nothing, nothing, nothing)

    def add(self, text: str | bytes, name: str = "a.txt", *, tenant: str = "acme", matter: str | None = "m-1") -> str:
        data = text.encode() if isinstance(text, str) else text
        return self.documents.add(tenant, data, name=name, matter=matter).id

    def claim(self, *, tenant: str = "acme", documents: Sequence[str] | None = None, **options: Any) -> Claim:
        body: dict[str, Any] = {"threshold": 0.8, "ignore_numbers": False} | options
        body |= {"documents": list(documents)} if documents else {"matter": "m-1"}
        return Claim(tenant, "job_1", 1, "duplicates", Lane.ANALYZE, Priority.NORMAL, body, None, None, None, {}, None)

    def sketched(self, document: str) -> str:
        """The blob of a document's sketch."""
        outputs = self.documents._client.hgetall(self.documents._keys("outputs", tenant="acme", document=document))
        (blob,) = {blob for label, blob in outputs.items() if label.startswith("sketch:")}
        return blob

    def compare(self, **options: Any) -> dict[str, Any]:
        self.events.clear()
        lifecycle = SimpleNamespace(append=lambda _claim, _event, data: self.events.append(data) or True)
        execution = Execution(self.claim(**options), cast(Any, lifecycle), lambda: False)
        return find_near_duplicates(self.toolbox, execution)


@pytest.fixture
def office(settings: Settings, lifecycle: Lifecycle) -> Office:
    return Office(settings, Documents(lifecycle.client, lifecycle.keys, Blobs(settings.data_dir)))


def test_a_grown_matter_computes_only_what_is_new(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = module.read_text
    monkeypatch.setattr(module, "read_text", lambda *a: read.append(a[2]) or original(*a))
    lease, letter = office.add(LEASE, "lease.txt"), office.add(LETTER, "letter.txt")
    first = office.compare()
    assert (first["compared"], first["computed"], first["pairs"], first["clusters"]) == (2, 2, [], [])
    assert read == [lease, letter]
    assert not first["reused"]
    version = office.add(LEASE_2, "lease 2.txt")
    second = office.compare()
    assert read == [lease, letter, version, lease, version], "candidates are read again for their shingles"
    assert (second["compared"], second["computed"]) == (3, 1)
    a, b = sorted((lease, version))
    assert second["pairs"] == [{"a": a, "b": b, "jaccard": SIMILARITY}]
    assert second["clusters"] == [
        {
            "representative": lease,
            "documents": [{"document": lease, "jaccard": 1.0}, {"document": version, "jaccard": SIMILARITY}],
        }
    ]
    assert second["documents"] == {lease: {"name": "lease.txt"}, version: {"name": "lease 2.txt"}}
    third = office.compare()
    assert (third["computed"], third["reused"], third["pairs"]) == (0, True, second["pairs"])
    assert office.events == [{"documents": done, "total": 3, "computed": 0} for done in (1, 2, 3)]
    assert len(read) == 5


def test_numbers_can_be_ignored(office: Office) -> None:
    office.add(DATED)
    office.add(DATED_2)
    (pair,) = office.compare()["pairs"]
    assert pair["jaccard"] < 1
    ignoring = office.compare(ignore_numbers=True)
    assert ignoring["computed"] == 2, "other shingles, kept beside the others"
    assert [pair["jaccard"] for pair in ignoring["pairs"]] == [1.0]
    assert office.compare()["pairs"] == [pair]


def test_what_cannot_be_compared_is_reported_and_drops_nothing(office: Office) -> None:
    lease, version = office.add(LEASE), office.add(LEASE_2)
    short = office.add("too few words", "note.txt")
    damaged = office.add(bytes(range(256)) * 32, "bad.bin")
    gone = "doc_" + "0" * 64
    result = office.compare(documents=[damaged, short, lease, gone, version])
    assert result["compared"] == 2
    assert len(result["pairs"]) == 1
    assert result["too_short"] == [short]
    assert [(item["document"], item["code"]) for item in result["unread"]] == [
        (damaged, "document_type_unknown"),
        (gone, "document_unknown"),
    ]
    assert result["documents"][damaged] == {"name": "bad.bin"}
    assert set(result["documents"]) == {lease, version, short, damaged}


def test_no_tenant_sees_anothers_documents(office: Office) -> None:
    mine, theirs = office.add(LEASE), office.add(LEASE_2, tenant="other")
    assert office.compare()["compared"] == 1
    result = office.compare(documents=[mine, theirs])
    assert (result["compared"], result["pairs"]) == (1, [])
    assert [(item["document"], item["code"]) for item in result["unread"]] == [(theirs, "document_unknown")]


def test_shingles_and_results_go_with_a_document(office: Office) -> None:
    lease, version, letter = office.add(LEASE), office.add(LEASE_2), office.add(LETTER)
    result = office.compare()
    claim = office.claim()
    blobs = office.documents.blobs
    kept = office.toolbox.keep_result(claim, result)
    assert json.loads(blobs.get("acme", kept)) == result
    shingled = office.sketched(version)
    office.documents.delete("acme", letter)
    assert blobs.path("acme", kept).exists(), "the letter is in no cluster"
    office.documents.delete("acme", version)
    assert not blobs.path("acme", kept).exists()
    assert not blobs.path("acme", shingled).exists()
    assert office.compare()["pairs"] == []
    with pytest.raises(Transient):  # erased while it was compared: the next attempt goes without it
        office.toolbox.keep_result(claim, result)
    with pytest.raises(NotFound):
        blobs.get("acme", kept)
    assert office.documents.get("acme", lease)


def test_shingles_beyond_the_memory_for_them_come_from_their_blobs(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        office.add(LEASE.replace("wordca", f"version{number}"))
    whole = office.compare()
    monkeypatch.setattr(module, "CACHE_BYTES", 3000)
    assert office.compare()["pairs"] == whole["pairs"]
    assert len(whole["pairs"]) == 66


def test_the_sketch_of_a_named_adapter_is_the_same(office: Office, gpu: Runtime) -> None:
    document = office.add(LEASE)
    assert office.compare()["engine"] == "numpy"
    blob = office.sketched(document)
    office.documents.delete("acme", document)
    assert office.add(LEASE) == document
    office.settings = office.settings.model_copy(update={"adapter": gpu.name})
    result = office.compare()
    assert (result["engine"], result["computed"]) == (gpu.name, 1)
    assert office.sketched(document) == blob, "the same bytes have the same name"


def test_the_route_and_the_job_type(fake_stack: Running) -> None:
    ids = [fake_stack.upload(text.encode(), f"{n}.txt").json()["id"] for n, text in enumerate((LEASE, LEASE_2, LETTER))]
    body = {"documents": ids, "threshold": 0.9}
    headers = {"Idempotency-Key": "near"}
    answer = fake_stack.http.post("/v1/duplicates", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["type"], answer.headers["location"]) == ("duplicates", f"/v1/jobs/{job['id']}")
    assert fake_stack.http.post("/v1/duplicates", json=body, headers=headers).json()["id"] == job["id"]
    other = body | {"threshold": 0.8}
    problem(fake_stack.http.post("/v1/duplicates", json=other, headers=headers), 422, "idempotency_mismatch")
    done = fake_stack.finished(job["id"])
    assert done["state"] == "succeeded", done
    assert [pair["jaccard"] for pair in done["result"]["pairs"]] == [SIMILARITY]
    assert "not legal advice" in done["result"]["notice"]
    progress = [data for _, name, data in fake_stack.events(job["id"]) if name == "progress"]
    assert progress[-1]["documents"] == 3
    same = fake_stack.submit(type="duplicates", input={"documents": ids, "ignore_numbers": True})
    assert len(fake_stack.finished(same["id"])["result"]["pairs"]) == 1


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({}, 422, "documents_required"),
        ({"matter": "empty"}, 404, "matter_unknown"),
        ({"matter": "../etc"}, 422, "name_invalid"),
        ({"documents": ["doc_" + "0" * 64, "doc_" + "1" * 64]}, 404, "document_unknown"),
        ({"documents": ["doc_" + "0" * 64]}, 422, "input_invalid"),
        ({"documents": []}, 422, "input_invalid"),
        ({"matter": "m", "threshold": 0.4}, 422, "input_invalid"),
        ({"matter": "m", "threshold": 1.1}, 422, "input_invalid"),
        ({"matter": "m", "priority": "asap"}, 422, "priority_unknown"),
        ({"matter": "m", "colour": "red"}, 422, "request_invalid"),
    ],
)
def test_a_bad_comparison_gets_a_problem(fake_stack: Running, change: dict[str, Any], status: int, code: str) -> None:
    problem(fake_stack.http.post("/v1/duplicates", json=change), status, code)


def test_a_run_and_a_single_document_are_refused(fake_stack: Running) -> None:
    document = fake_stack.upload(LEASE.encode()).json()["id"]
    problem(fake_stack.http.post("/v1/runs", json={"type": "duplicates", "documents": [document]}), 422, "type_unknown")
    body = {"type": "duplicates", "document": document}
    problem(fake_stack.http.post("/v1/jobs", json=body), 422, "input_invalid")


@pytest.mark.slow
def test_the_verb_prints_clusters_and_what_was_left_out(fake_stack: Running) -> None:
    shell = Shell(CASEMILL_DATA_DIR=str(fake_stack.settings.data_dir))
    ids: list[str] = []
    for name, text in (("lease.txt", LEASE + " x"), ("lease 2.txt", LEASE_2 + " x"), ("note.txt", "few words")):
        answer = fake_stack.http.post(
            "/v1/documents", params={"name": name, "matter": "rooms", "read": "false"}, content=text.encode()
        )
        ids.append(answer.json()["id"])
    printed = [line.split("\t") for line in shell("duplicates", "rooms").splitlines()]
    assert [row[0] for row in printed] == ["1", "1"]
    assert {row[2]: row[3] for row in printed} == {ids[0]: "lease.txt", ids[1]: "lease 2.txt"}
    assert printed[0][1] == "1.000000"
    view = shell.json("duplicates", "rooms", "--threshold", "0.99", "--ignore-numbers")
    assert (view["result"]["pairs"], view["result"]["too_short"]) == ([], [ids[2]])
    assert "matter_unknown" in shell("duplicates", "nowhere", status=1)
