"""Sentences in their context: what the step keeps, when it computes anew, and what the heads make of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
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
from workers.analysis.clause_heads.weights import shipped
from workers.engines.base import Embeddings
from workers.engines.fake import FakeEmbeddings
from workers.execution import Execution
from workers.tasks.clauses import find_clauses
from workers.tasks.context import embed_context, load_context
from workers.toolbox import Toolbox

SENTENCES = (
    "This Agreement shall be governed by the laws of the State of New York.",
    "Neither party may assign this Agreement without the prior written consent of the other party.",
    "The sky over the harbour was grey.",
)
TEXT = " ".join(SENTENCES)
DOCUMENT = DocumentText("txt", TEXT, (Page(1, 0, len(TEXT)),), (Paragraph(0, len(TEXT)),))


class Contexts(FakeEmbeddings):
    """Counts calls; the probe's vector is ``probe``, that of any text the text's own."""

    def __init__(self, sha256: str = "1" * 64, probe: Any = None) -> None:
        super().__init__(replace(fake_model("embed"), sha256=sha256))
        self.asked: list[list[str]] = []
        self.probe = probe

    def embed_in_context(self, texts: Sequence[str], **options: Any) -> Embeddings:
        self.asked.append(list(texts))
        if len(texts) > 1 or self.probe is None:
            return super().embed_in_context(texts, **options)
        return Embeddings(self.probe[None], [1])


class Office(Toolbox):
    def playbook(self, claim: Claim) -> Playbook:
        return default_playbook()

    def text(self, claim: Claim) -> DocumentText:
        return DOCUMENT


@pytest.fixture
def documents(settings: Settings, lifecycle: Lifecycle) -> Documents:
    return Documents(lifecycle.client, lifecycle.keys, Blobs(settings.data_dir))


def office(documents: Documents, engine: Contexts) -> tuple[Office, Execution]:
    document = documents.add("acme", TEXT.encode(), name="lease").id
    engines = SimpleNamespace(lease_embedding=lambda _name, **_options: nullcontext(engine))
    claim = Claim(
        "acme", "j", 1, "x", Lane.EMBED, Priority.NORMAL, {"document": document}, "model", document, None, {}, None
    )  # fmt: skip
    nothing = cast(Any, None)
    toolbox = Office(Settings(), documents.blobs, documents, cast(Any, engines), nothing, nothing, nothing, nothing)
    return toolbox, Execution(claim, cast(Any, None), lambda: False)


def test_each_sentence_has_its_place_and_the_vector_it_has_among_the_others(documents: Documents) -> None:
    engine = Contexts()
    step = embed_context(*office(documents, engine))
    kept = load_context(documents.blobs.get("acme", step["output"]))
    assert [TEXT[start:end] for start, end in kept.spans] == list(SENTENCES)
    assert np.array_equal(kept.vectors, FakeEmbeddings().embed_in_context(SENTENCES).vectors)
    assert kept.probe.shape == (engine.model.dimensions,)
    assert step["model"]["name"] == engine.model.name


def test_it_is_computed_once_for_a_model(documents: Documents) -> None:
    first, again, other = Contexts(), Contexts(), Contexts("2" * 64)
    reused = [embed_context(*office(documents, engine))["reused"] for engine in (first, again, other)]
    assert reused == [False, True, False]
    assert (len(first.asked), len(again.asked), len(other.asked)) == (2, 0, 2), "the text and the probe"


@pytest.mark.parametrize("same", [True, False])
def test_only_the_model_that_the_heads_were_trained_with_is_scored(documents: Documents, same: bool) -> None:
    probe = shipped().probe
    engine = Contexts(probe=probe if same else -probe)
    toolbox, execution = office(documents, engine)
    claim = execution.claim
    found = documents.blobs.put("acme", "scan", b'{"findings": []}')
    steps = {"context": embed_context(toolbox, execution), "scan": {"output": found}}
    outputs = {name: toolbox.keep_result(replace(claim, id=name), step) for name, step in steps.items()}
    result = find_clauses(toolbox, Execution(replace(claim, outputs=outputs), cast(Any, None), lambda: False))
    assert (result["heads"] is not None) == same
    assert len(result["presence"]) == (len(shipped().heads) if same else 0)
    for clause in result["clauses"]:
        assert clause["text"] == TEXT[clause["start"] : clause["end"]]
