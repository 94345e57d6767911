"""A paragraph that another document of the tenant holds is not embedded again, as long as that document is there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from services.blobs import Blobs
from services.documents import Documents
from services.jobs import Claim, Lane, Priority
from services.lifecycle import Lifecycle
from services.models import fake_model
from services.playbooks import Playbook, default_playbook
from services.settings import Settings
from services.texts import DocumentText, Page, Paragraph
from services.vector_index import VectorIndex
from workers.engines.base import Embeddings, TextOrTokens
from workers.engines.fake import FakeEmbeddings
from workers.execution import Execution
from workers.tasks.segments import embed_segments, load_segments
from workers.toolbox import Toolbox

CLAUSES = [f"Clause {number}: on day {number} the tenant shall pay the rent." for number in range(12)]


class CountingEmbeddings(FakeEmbeddings):
    """Remembers the clauses that it was asked for."""

    def __init__(self, sha256: str) -> None:
        super().__init__(replace(fake_model("embed"), sha256=sha256))
        self.asked: list[str] = []

    def embed(self, texts: Sequence[TextOrTokens], **options: Any) -> Embeddings:
        self.asked += [str(text) for text in texts if text in CLAUSES]
        return super().embed(texts, **options)


@dataclass
class Office:
    """Embeds documents of clauses by the task itself, on real stores; ``computed`` are the clauses of the last one."""

    documents: Documents
    computed: list[str] = field(default_factory=list[str])

    def embed(
        self, clauses: Sequence[str], *, tenant: str = "acme", model: str = "1" * 64, force: bool = False
    ) -> tuple[str, str]:
        """The document and the blob of its vectors, which are checked to be those of each clause alone."""
        document = self.documents.add(tenant, "\n\n".join(clauses).encode(), name="lease").id
        ends = np.cumsum([len(clause) + 2 for clause in clauses]).tolist()
        parts = tuple(Paragraph(end - len(clause) - 2, end - 2) for end, clause in zip(ends, clauses, strict=True))
        text = DocumentText("txt", "\n\n".join(clauses), (Page(1, 0, ends[-1] - 2),), parts)
        engine = CountingEmbeddings(model)
        engines = SimpleNamespace(lease_embedding=lambda _name, **_options: nullcontext(engine))
        body = {"document": document, "force": force}
        claim = Claim(tenant, "j", 1, "x", Lane.EMBED, Priority.NORMAL, body, "model", document, None, {}, None)
        nothing = cast(Any, None)
        toolbox = _Toolbox(
            Settings(), self.documents.blobs, self.documents, cast(Any, engines), nothing, nothing, nothing, nothing
        )
        _texts[document] = text
        step = embed_segments(toolbox, Execution(claim, cast(Any, None), lambda: False))
        vectors = load_segments(self.documents.blobs.get(tenant, step["output"])).vectors
        assert np.array_equal(vectors, FakeEmbeddings().embed(clauses).vectors)
        self.computed = engine.asked
        assert step["computed"] == len(engine.asked)
        return document, step["output"]


_texts: dict[str, DocumentText] = {}


class _Toolbox(Toolbox):
    def playbook(self, claim: Claim) -> Playbook:
        return default_playbook()

    def text(self, claim: Claim) -> DocumentText:
        return _texts[claim.input["document"]]


@pytest.fixture
def office(settings: Settings, lifecycle: Lifecycle) -> Office:
    return Office(Documents(lifecycle.client, lifecycle.keys, Blobs(settings.data_dir)))


def test_the_next_version_computes_only_what_changed(office: Office) -> None:
    office.embed(CLAUSES[:8] + CLAUSES[:2])
    assert office.computed == CLAUSES[:8], "a clause that stands twice is computed once"
    office.embed(CLAUSES[2:10])
    assert office.computed == CLAUSES[8:10]
    office.embed(CLAUSES[2:10], force=True)
    assert office.computed == CLAUSES[2:10]


def test_neither_another_tenant_nor_another_model_finds_it(office: Office) -> None:
    office.embed(CLAUSES[:4])
    office.embed(CLAUSES[1:4], tenant="other")
    assert office.computed == CLAUSES[1:4]
    office.embed(CLAUSES[1:4], model="2" * 64)
    assert office.computed == CLAUSES[1:4]


def test_what_is_erased_is_not_found_and_leaves_no_name(office: Office, lifecycle: Lifecycle) -> None:
    first, blob = office.embed(CLAUSES[:4])
    index = lifecycle.keys("vectors", tenant="acme")
    assert set(lifecycle.client.hvals(index)) == {blob}
    office.documents.delete("acme", first)
    assert not lifecycle.client.exists(index)
    office.documents.vectors.add("acme", first, blob, ["late"])
    assert office.documents.vectors.find("acme", ["late"]) == [None], "noted after its document was erased"
    office.embed(CLAUSES[1:4])
    assert office.computed == CLAUSES[1:4]


def test_a_clause_stays_known_while_one_document_holds_it(office: Office) -> None:
    first, _ = office.embed(CLAUSES[:4])
    office.embed(CLAUSES[:3])
    office.documents.delete("acme", first)
    office.embed(CLAUSES[:2])
    assert office.computed == []


@pytest.mark.parametrize("damage", ["gone", "cut", "other bytes"])
def test_a_lost_or_damaged_blob_costs_only_the_computation(office: Office, damage: str) -> None:
    _, blob = office.embed(CLAUSES[:4])
    path = office.documents.blobs.path("acme", blob)
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"no vectors")
    office.embed(CLAUSES[1:4])
    assert office.computed == CLAUSES[1:4]


def test_an_output_that_is_replaced_goes_with_its_document_too(office: Office) -> None:
    document, _ = office.embed(CLAUSES[:4])
    first, other = (office.documents.blobs.put("acme", "vectors", data, scope=document) for data in (b"1", b"2"))
    for blob in (first, other):
        office.documents.keep_output("acme", document, "vectors:x", blob)
    office.documents.delete("acme", document)
    assert not any(office.documents.blobs.path("acme", blob).exists() for blob in (first, other))


def test_the_index_is_bounded_and_keeps_the_newest(office: Office, lifecycle: Lifecycle) -> None:
    document, blob = office.embed(CLAUSES[:1])
    index = VectorIndex(lifecycle.client, lifecycle.keys, generation=10)
    texts = [f"text-{number}" for number in range(45)]
    index.add("acme", document, blob, texts)
    found = [bool(place) for place in index.find("acme", texts)]
    assert sum(found) <= 20
    assert all(found[-10:])
    raw: Any = lifecycle.client
    assert all(raw.ttl(lifecycle.keys(name, tenant="acme")) > 0 for name in ("vectors", "vectors_before"))
