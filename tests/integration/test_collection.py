"""Many texts at once: the counts and findings of a collection are those of its texts one by one, on every device."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.patterns import parse_pattern
from services.playbooks import Category, Literal, Playbook, default_playbook, load_playbook
from shaders import automaton
from shaders.corpus import Upload, Uploader
from shaders.factors import ScanPlan
from shaders.runtime import Runtime
from shaders.tally import GpuTally
from tests.integration.test_scan_equal import ENGINES, TEXT, contracts, encoded, found_by, playbooks, reference
from workers.analysis import collection
from workers.analysis.collection import Collection
from workers.analysis.scan import scan


def category(number: int, *literals: Literal) -> Category:
    return Category(f"c{number}", f"C{number}", "", "clause", 1.0, False, literals, ())


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(texts=st.lists(TEXT, max_size=4), playbook=playbooks())
def test_counts_are_those_of_the_findings(texts: list[str], playbook: Playbook, gpu: Runtime) -> None:
    expected = [[len(reference(text, playbook))] for text in texts]
    for device in ("cpu", "gpu"):
        assert Collection(encoded(texts), device=device, adapter=gpu.name).count(playbook).tolist() == expected


def test_contracts_are_counted_as_they_are_scanned(data: Path, gpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "BATCH", 200_000)
    texts, playbook = contracts(data)[::8], default_playbook()
    expected = [scan(text, playbook, device="cpu").findings for text in texts]
    resident = Collection(encoded(texts), device="gpu", adapter=gpu.name)
    counts = resident.count(playbook)
    for row, findings in zip(counts, expected, strict=True):
        ids = [finding.category for finding in findings]
        assert row.tolist() == [ids.count(category.id) for category in playbook.categories]
    assert resident.scan(playbook) == expected


def test_texts_stay_on_the_device_for_the_same_alphabet(gpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counted(Uploader):
        def begin(self, texts: Sequence[bytes]) -> Upload:
            made.append(len(texts))
            return super().begin(texts)

    monkeypatch.setattr(collection, "Uploader", Counted)
    monkeypatch.setattr(collection, "BATCH", 10)
    one = Playbook("p", "p", (category(1, Literal("law"), Literal("wall")),))
    same_letters = Playbook("q", "q", (category(1, Literal("awl")),))
    other = Playbook("r", "r", (category(1, Literal("the")),))
    texts = ["the law", "the wall", "an awl, an awl"]
    resident = Collection(encoded(texts), device="gpu", adapter=gpu.name)
    assert resident.count(one).tolist() == [[1], [1], [0]]
    assert resident.count(one).tolist() == [[1], [1], [0]]
    assert resident.count(same_letters).tolist() == [[0], [0], [2]]
    assert made == [1, 1, 1]
    assert resident.count(other).tolist() == [[1], [1], [0]]
    assert made == [1] * 6


def test_each_batch_and_each_text_that_the_host_looks_at_is_a_tick(
    gpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "BATCH", 20)
    texts = encoded(["the law", "the wall", "an awl, an awl", "law"])  # the first two are one batch
    literals = Playbook("p", "p", (category(1, Literal("law")),))
    pattern = replace(literals, categories=(replace(category(2), patterns=(parse_pattern(r"\bwall"),)),))
    on_gpu = Collection(texts, device="gpu", adapter=gpu.name)
    ticks = [0]

    def ticked(scan: Callable[[Playbook, Callable[[], None]], object], playbook: Playbook) -> int:
        def tick() -> None:
            ticks[0] += 1

        ticks[0] = 0
        scan(playbook, tick)
        return ticks[0]

    assert ticked(on_gpu.count, literals) == 2, "as they are uploaded"
    assert ticked(on_gpu.count, literals) == 2, "as they are there"
    assert ticked(on_gpu.scan, literals) == 2 + 4
    assert ticked(on_gpu.count, pattern) == 2 + 4
    assert [ticked(getattr(Collection(texts), name), literals) for name in ("count", "scan")] == [4, 4]


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_documents_and_shards_may_end_anywhere(size: int, gpu: Runtime) -> None:
    """Words across borders of shards, documents of no symbol, neighbours beyond a border."""
    playbook = Playbook(
        "p", "p", (category(1, Literal("governing law")), category(2, Literal("law"), Literal("aw", whole_words=False)))
    )
    texts = ["", "law", "", "governing  law", "laws law", "", "outlaw governing law."] * 9 + [""]
    plan = ScanPlan(playbook)
    tally = GpuTally(plan, automaton.MAX_CELLS, gpu)
    assert tally.counted.all()
    corpus = Uploader(plan.alphabet, gpu).corpus(encoded(texts), size)
    expected = [
        [len(re.findall(r"\bgoverning\s+law\b", text)), len(re.findall(r"\blaw\b", text)) + text.count("aw")]
        for text in texts
    ]
    assert tally.finish(corpus, tally.begin(corpus)).tolist() == expected


def test_a_word_in_very_many_categories_is_counted_on_the_host(gpu: Runtime) -> None:
    playbook = Playbook("p", "p", tuple(category(number, Literal("law")) for number in range(300)))
    plan = ScanPlan(playbook)
    assert not GpuTally(plan, automaton.MAX_CELLS, gpu).counted.any()
    counts = Collection([b"law law", b"x"], device="gpu", adapter=gpu.name).count(playbook)
    assert counts.tolist() == [[2] * 300, [0] * 300]


def hundred_thousand(words: list[str]) -> Playbook:
    """A playbook of 100,000 phrases of the words, in 100 categories, and a pattern."""
    dice = random.Random(5)
    phrases: dict[str, None] = {}
    while len(phrases) < 100_000:
        phrases[" ".join(dice.choices(words, k=dice.randint(1, 3)))] = None
    listed = list(phrases)
    lines = ["name: large", "categories:"]
    for number in range(100):
        lines += [f"  - id: c{number}", f"    title: C{number}", "    weight: 0.5", "    literals:"]
        lines += [f'      - "{phrase}"' for phrase in listed[number * 1000 : number * 1000 + 1000]]
    lines += [r"    patterns: ['\b\d{1,3} days\b']"]
    return load_playbook("\n".join(lines))


@pytest.mark.slow
def test_a_hundred_thousand_terms(data: Path, gpu: Runtime) -> None:
    texts = [text[:20_000] for text in contracts(data)[::40]]
    words = sorted({word for text in contracts(data)[::7] for word in re.findall("[a-z]{4,}", text)})
    playbook = hundred_thousand(words)
    assert len(automaton.build_automata(ScanPlan(playbook))) > 2
    expected = [reference(text, playbook) for text in texts]
    assert sum(map(len, expected)) > 5_000
    for engine in ENGINES:
        assert found_by(engine, texts, playbook, lambda: gpu) == expected
    counts = Collection(encoded(texts), device="gpu", adapter=gpu.name).count(playbook)
    ids = [category.id for category in playbook.categories]
    for row, spans in zip(counts, expected, strict=True):
        assert row.tolist() == np.bincount([ids.index(span[0]) for span in spans], minlength=len(ids)).tolist()
    assert parse_pattern(r"\b\d{1,3} days\b") in playbook.categories[-1].patterns
