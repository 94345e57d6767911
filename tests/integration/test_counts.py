"""Counts of findings by document: the same on GPU and CPU, what stays for the next playbook, what is told of others."""

from __future__ import annotations

import json
from collections.abc import Generator, Hashable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pypdfium2
import pytest
from fpdf import FPDF

from gateway.set_result_schemas import CountResult
from services.blobs import Blobs
from services.documents import Documents
from services.errors import NotFound, Transient
from services.jobs import Claim, Device, Lane, Priority
from services.lifecycle import Lifecycle
from services.playbook_store import PlaybookStore
from services.playbooks import Playbook
from services.scripts import Scripts
from services.settings import Settings
from shaders.corpus import Upload, Uploader
from shaders.runtime import Runtime
from workers.analysis import collection
from workers.analysis.collection import Collection
from workers.documents import ocr
from workers.engines.base import Tick
from workers.execution import Execution, Stopped
from workers.rooms import Room, Rooms
from workers.tasks import count as module
from workers.tasks.count import count_findings
from workers.toolbox import Toolbox

LEASE = "The tenant may sublet. The rent is due in advance. The tenant may underlet § 7 𝔄 within 30 days."
LETTER = "Rent, rent, rent: pay within 10 days."
NOTHING = "Nothing of the kind."
PLAYBOOK = r"""
name: lease
categories:
  - {id: subletting, title: Subletting, weight: 0.4, literals: [sublet, underlet]}
  - {id: rent, title: Rent, weight: 0.3, literals: [rent]}
  - {id: time, title: Time limits, weight: 0.3, patterns: ['\b\d{1,3} days\b']}
"""
SAME_LETTERS = PLAYBOOK.replace("[rent]", "[tenant]")
OTHER_LETTERS = PLAYBOOK.replace("[rent]", "[kind]")
FOUND = {
    "lease.txt": {"subletting": 2, "rent": 1, "time": 1},
    "letter.txt": {"rent": 3, "time": 1},
    "nothing.txt": {},
}


@dataclass
class Office:
    """Counts by the task itself, on real stores; ``events`` are the progress of the last job."""

    settings: Settings
    documents: Documents
    playbooks: PlaybookStore
    rooms: Rooms = field(default_factory=lambda: Rooms(2**20))
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def toolbox(self) -> Toolbox:
        nothing = cast(Any, None)
        blobs = self.documents.blobs
        return Toolbox(
            self.settings, blobs, self.documents, nothing, self.playbooks, nothing, nothing, nothing, rooms=self.rooms
        )

    def add(self, text: str | bytes, name: str = "a.txt", *, tenant: str = "acme", matter: str | None = "m-1") -> str:
        data = text.encode() if isinstance(text, str) else text
        return self.documents.add(tenant, data, name=name, matter=matter).id

    def fill(self, tenant: str = "acme") -> list[str]:
        """The usual documents."""
        texts = {"lease.txt": LEASE, "nothing.txt": NOTHING, "letter.txt": LETTER}
        return [self.add(text, name, tenant=tenant) for name, text in texts.items()]

    def execution(
        self,
        playbook: str = PLAYBOOK,
        *,
        device: Device = Device.ANY,
        documents: Sequence[str] | None = None,
        tenant: str = "acme",
    ) -> Execution:
        stored, _ = self.playbooks.upload(tenant, playbook.encode())
        body: dict[str, Any] = {"documents": list(documents)} if documents else {"matter": "m-1"}
        body["playbook"] = stored.version
        claim = Claim(
            tenant, "job_1", 1, "count", Lane.ANALYZE, Priority.NORMAL, body, None, None, None, {}, None, device=device
        )
        self.events.clear()
        lifecycle = SimpleNamespace(append=lambda _claim, _event, data: self.events.append(data) or True)
        return Execution(claim, cast(Any, lifecycle), lambda: False)

    def count(self, playbook: str = PLAYBOOK, **options: Any) -> dict[str, Any]:
        result = count_findings(self.toolbox, self.execution(playbook, **options))
        assert CountResult.model_validate(result).model_dump(exclude_unset=True) == result
        return result


@pytest.fixture
def office(settings: Settings, lifecycle: Lifecycle) -> Office:
    blobs = Blobs(settings.data_dir)
    documents = Documents(lifecycle.client, lifecycle.keys, blobs)
    return Office(settings, documents, PlaybookStore(lifecycle.client, lifecycle.keys, blobs))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The blobs of texts that were loaded."""
    loaded: list[str] = []
    original = Blobs.get

    def get(self: Blobs, tenant: str, name: str) -> bytes:
        if name.startswith("text_"):
            loaded.append(name)
        return original(self, tenant, name)

    monkeypatch.setattr(Blobs, "get", get)
    return loaded


@pytest.fixture
def uploaded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each batch had that was brought to the GPU."""
    uploaded: list[int] = []

    class Counted(Uploader):
        def begin(self, texts: Sequence[bytes]) -> Upload:
            uploaded.append(len(texts))
            return super().begin(texts)

    monkeypatch.setattr(collection, "Uploader", Counted)
    return uploaded


def on(office: Office, gpu: Runtime) -> Office:
    """The office with the adapter of the tests."""
    office.settings = office.settings.model_copy(update={"adapter": gpu.name})
    return office


def test_each_document_has_its_counts_and_the_most_come_first(office: Office) -> None:
    lease, nothing, letter = office.fill()
    result = office.count()
    assert result["documents"] == [
        {"document": lease, "name": "lease.txt", "findings": 4, "counts": {"subletting": 2, "rent": 1, "time": 1}},
        {"document": letter, "name": "letter.txt", "findings": 4, "counts": {"rent": 3, "time": 1}},
        {"document": nothing, "name": "nothing.txt", "findings": 0, "counts": {}},
    ]
    assert result["categories"] == [
        {"category": "subletting", "title": "Subletting", "findings": 2, "documents": 1},
        {"category": "rent", "title": "Rent", "findings": 4, "documents": 2},
        {"category": "time", "title": "Time limits", "findings": 2, "documents": 2},
    ]
    assert (result["counted"], result["unread"], result["matter"]) == (3, [], "m-1")
    assert result["playbook"]["name"] == "lease"
    assert office.events == [{"documents": done, "total": 3} for done in (1, 2, 3)]
    for text in (LEASE, LETTER, NOTHING):
        assert text not in json.dumps(result, ensure_ascii=False)


def test_gpu_and_cpu_count_the_same_and_the_job_chooses(office: Office, gpu: Runtime) -> None:
    office.fill()
    results = {device: on(office, gpu).count(device=device) for device in Device}
    for result in results.values():
        assert {row["name"]: row["counts"] for row in result["documents"]} == FOUND
    assert {device: result["engine"] == gpu.name for device, result in results.items()} == {
        Device.GPU: True,
        Device.CPU: False,
        Device.ANY: True,  # as an adapter is named
    }
    office.settings = office.settings.model_copy(update={"adapter": None})
    assert office.count()["engine"] == results[Device.CPU]["engine"]
    assert office.count(device=Device.GPU)["engine"] == gpu.name


def test_the_second_playbook_loads_and_uploads_nothing(
    office: Office, gpu: Runtime, loaded: list[str], uploaded: list[int]
) -> None:
    office.fill()
    first = on(office, gpu).count(device=Device.GPU)
    assert (first["resident"], uploaded, len(set(loaded))) == (False, [3], 3)
    loaded.clear()
    second = office.count(SAME_LETTERS, device=Device.GPU)
    assert (second["resident"], uploaded, loaded) == (True, [3], [])
    assert [category["findings"] for category in second["categories"]] == [2, 2, 2]
    third = office.count(OTHER_LETTERS, device=Device.GPU)
    assert (third["resident"], uploaded, loaded) == (True, [3, 3], []), "other letters are other symbols"
    assert [category["findings"] for category in third["categories"]] == [2, 1, 2]
    office.add("One more sublet.", "more.txt")
    assert not office.count(device=Device.GPU)["resident"], "it is another list"
    assert uploaded == [3, 3, 4]


def test_on_the_cpu_the_texts_stay_too(office: Office, loaded: list[str]) -> None:
    office.fill()
    office.count()
    loaded.clear()
    assert office.count(OTHER_LETTERS)["resident"]
    assert loaded == []


def test_zero_keeps_nothing(office: Office, loaded: list[str]) -> None:
    office.fill()
    office.rooms = Rooms(0)
    office.count()
    loaded.clear()
    assert not office.count()["resident"]
    assert len(loaded) == 3


def test_a_room_larger_than_a_part_is_counted_part_by_part(
    office: Office, gpu: Runtime, uploaded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    office.fill()
    whole = office.count()
    monkeypatch.setattr(module, "PART", len(LEASE.encode()))
    for _ in range(2):
        parts = on(office, gpu).count(device=Device.GPU)
        assert (parts["documents"], parts["categories"]) == (whole["documents"], whole["categories"])
    assert uploaded == [1, 2]


def test_no_tenant_is_served_from_anothers_room(office: Office, loaded: list[str]) -> None:
    mine, theirs = office.fill(), office.fill("rival")
    office.count()
    loaded.clear()
    assert not office.count(tenant="rival")["resident"]
    assert len(set(loaded)) == 3
    result = office.count(documents=[mine[0], theirs[0]])
    assert [row["document"] for row in result["documents"]] == [mine[0]]
    assert [(row["document"], row["name"], row["code"]) for row in result["unread"]] == [
        (theirs[0], None, "document_unknown")
    ]


def test_an_empty_matter_has_empty_counts(office: Office) -> None:
    office.documents.delete("acme", office.add(LEASE))
    result = office.count()
    assert (result["counted"], result["documents"], result["unread"]) == (0, [], [])
    assert [row["findings"] for row in result["categories"]] == [0, 0, 0]


def test_what_has_no_text_is_named_with_the_reason(office: Office, scan: bytes, mixed_scan: bytes) -> None:
    scanned, partly = office.add(scan, "scan.pdf"), office.add(mixed_scan, "mixed.pdf")
    damaged = office.add(bytes(range(256)) * 32, "bad.bin")
    result = office.count()
    assert [(row["document"], row["name"], row["code"]) for row in result["unread"]] == [
        (scanned, "scan.pdf", "document_needs_ocr"),
        (damaged, "bad.bin", "document_type_unknown"),
    ]
    (row,) = result["documents"]
    assert (row["document"], row["counts"]) == (partly, {"rent": 1})
    assert "OCR is needed" in row["notes"][0]
    assert office.count()["documents"] == [row], "what the reader noted stays with the text"


@pytest.fixture
def no_ocr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "program", lambda: None)


@pytest.fixture
def scan(no_ocr: None) -> bytes:
    """A picture of a page."""
    return drawn(False)


@pytest.fixture
def mixed_scan(no_ocr: None) -> bytes:
    """A page of text and a picture of one."""
    return drawn(True)


def drawn(with_text: bool) -> bytes:
    pdf, blank = FPDF(), pypdfium2.PdfDocument.new()
    picture = blank.new_page(200, 280).render(scale=1).to_pil()
    pdf.set_font("Helvetica", size=12)
    if with_text:
        pdf.add_page()
        pdf.multi_cell(0, 8, "The rent is due.")
    pdf.add_page()
    pdf.image(picture, x=0, y=0, w=210, h=297)
    return bytes(pdf.output())


def test_a_result_goes_with_each_document_that_it_names(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.documents._AT_ONCE", 2)
    lease, *_ = office.fill()
    damaged = office.add(bytes(range(256)) * 32, "bad.bin")
    execution, blobs = office.execution(), office.documents.blobs
    for document in (lease, damaged):
        result = count_findings(office.toolbox, execution)
        kept = office.toolbox.keep_result(execution.claim, result)
        assert json.loads(blobs.get("acme", kept)) == result
        office.documents.delete("acme", document)
        with pytest.raises(NotFound):
            blobs.get("acme", kept)
        with pytest.raises(Transient):  # erased while it was counted: the next attempt goes without it
            office.toolbox.keep_result(execution.claim, result)


def test_a_result_of_many_documents_is_kept_under_many_at_once(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.fill()
    execution, ran, original = office.execution(), list[str](), Scripts.run
    result = count_findings(office.toolbox, execution)
    monkeypatch.setattr(Scripts, "run", lambda self, name, argument: ran.append(name) or original(self, name, argument))
    office.toolbox.keep_result(execution.claim, result)
    assert ran == ["keep_result"]


def test_a_text_that_is_erased_before_it_is_loaded_has_the_job_tried_again(office: Office) -> None:
    lease, *_ = office.fill()

    class Late(Rooms):
        @contextmanager
        def room(self, tenant: str, texts: Hashable, tick: Tick) -> Generator[Room]:
            office.documents.delete("acme", lease)
            with super().room(tenant, texts, tick) as room:
                yield room

    office.rooms = Late(2**20)
    with pytest.raises(Transient) as failed:
        office.count()
    assert failed.value.code == "document_deleted"
    office.rooms = Rooms(2**20)
    assert office.count()["counted"] == 2


@pytest.mark.parametrize("device", [Device.CPU, Device.GPU])
def test_a_cancelled_count_stops_between_texts_and_keeps_nothing(
    office: Office, gpu: Runtime, monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    office.fill()
    monkeypatch.setattr(collection, "BATCH", 10)
    execution, ticks, original = on(office, gpu).execution(device=device), list[None](), Collection.count

    def count(counted: Collection, playbook: Playbook, tick: Tick) -> Any:
        def step() -> None:
            ticks.append(None)
            if len(ticks) == 2:
                execution.stop("cancel")
            tick()

        return original(counted, playbook, step)

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Collection, "count", count)
        count_findings(office.toolbox, execution)
    assert len(ticks) == 2
    result = office.count(device=device)
    assert not result["resident"]
    assert {row["name"]: row["counts"] for row in result["documents"]} == FOUND


def test_a_gpu_without_memory_left_gets_what_other_rooms_took(
    office: Office, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = office.fill()
    office.count(documents=ids[:1])

    def full(*_: object) -> None:
        raise Transient("the GPU has no memory left", code="gpu_memory")

    with monkeypatch.context() as patched, pytest.raises(Transient):
        patched.setattr(Collection, "count", full)
        office.count()
    assert not office.count(documents=ids[:1])["resident"]
