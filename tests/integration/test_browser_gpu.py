"""Every kernel that is shipped compiles in Chromium's WebGPU and gives there what the CPU paths give."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.playbooks import default_playbook
from shaders.automaton import MAX_CELLS
from shaders.catalog import KERNELS, MINHASH, SIMILARITY
from shaders.corpus import Uploader
from shaders.factors import ScanPlan
from shaders.heads import fixed, multiply
from shaders.minhash import GpuMinHash
from shaders.scan import GpuScanner
from shaders.tally import GpuTally
from tests.browser_gpu import CHROMIUM, BrowserRuntime, browser_runtime
from tests.integration.test_scan_equal import contracts
from tests.integration.test_similarity_equal import check_candidates
from workers.analysis.confirm import confirm
from workers.analysis.minhash import sketches
from workers.analysis.scan import scan

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Generator[Any]:
    if not Path(CHROMIUM).exists():
        reason = "Chromium is missing; on Debian: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with browser_runtime() as runtime:
        yield runtime


@pytest.fixture(scope="module")
def texts(data: Path) -> list[str]:
    return ["", *(text[:30_000] for text in contracts(data)[::60])]


@pytest.fixture(scope="module")
def plan() -> ScanPlan:
    return ScanPlan(default_playbook())


def test_scan(browser: Any, plan: ScanPlan, texts: list[str]) -> None:
    playbook = default_playbook()
    found = GpuScanner(plan, browser).scan([text.encode() for text in texts])
    for text, hits in zip(texts, found, strict=True):
        stream = plan.alphabet.encode(text)
        assert confirm(text, stream, hits, plan, playbook) == scan(text, playbook, device="cpu").findings


def test_tally(browser: Any, plan: ScanPlan, texts: list[str]) -> None:
    playbook = default_playbook()
    tally = GpuTally(plan, MAX_CELLS, browser)
    corpus = Uploader(plan.alphabet, browser).corpus([text.encode() for text in texts], size=10_000)
    literals = {literal.text for category in playbook.categories for literal in category.literals}
    assert tally.counted.sum() == sum(len(category.literals) for category in playbook.categories)
    for row, text in zip(tally.finish(corpus, tally.begin(corpus)), texts, strict=True):
        found = [item.category for item in scan(text, playbook, device="cpu").findings if item.term in literals]
        assert row.tolist() == [found.count(category.id) for category in playbook.categories]


def test_minhash(browser: Any, texts: list[str]) -> None:
    found, left = GpuMinHash(browser).sketch([text.encode() for text in texts])
    assert not left
    assert np.array_equal(found, sketches(texts))


@pytest.mark.parametrize(("count", "width", "keep"), [(3, 5, 8), (5_000, 384, 40), (1, 4, 1)])
def test_similarity(browser: Any, count: int, width: int, keep: int) -> None:
    dice = np.random.default_rng(2)
    vectors = dice.integers(-3, 4, (count, width)).astype(np.float32)
    queries = dice.integers(-3, 4, (70, width)).astype(np.float32)
    check_candidates(vectors, queries, keep, browser)


def test_heads(browser: Any) -> None:
    dice = np.random.default_rng(3)
    vectors, weights = dice.standard_normal((70, 384)), dice.standard_normal((384, 41))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights /= np.linalg.norm(weights, axis=0)
    both = fixed(vectors.astype(np.float32)), fixed(weights.astype(np.float32))
    assert np.array_equal(multiply(*both, browser), multiply(*both, None))


def test_every_kernel_has_run(browser: BrowserRuntime) -> None:
    """After the tests above: a kernel that is new in the catalog needs one too."""
    assert browser.ran == {(kernel.file, entry) for kernel in KERNELS for entry in kernel.entries}


@pytest.mark.parametrize(
    ("was", "broken", "message"),
    [
        ("  workgroupBarrier();\n  for", "  if (lane < 7u) { workgroupBarrier(); }\n  for", "uniform"),
        ("number >= job.pieces", "number + lane >= job.pieces", "uniform"),
        ("const WORDS: u32 = 1024u", "const WORDS: u32 = 2048u", "16384"),
    ],
)
def test_what_wgpu_lets_pass_is_refused(browser: BrowserRuntime, was: str, broken: str, message: str) -> None:
    source = MINHASH.source()
    assert was in source
    with pytest.raises(Exception, match=message):
        browser.compile(broken, source.replace(was, broken, 1), "minhash")


def test_a_barrier_in_a_function_is_looked_at_too(browser: BrowserRuntime) -> None:
    source = SIMILARITY.source().replace("  sort_block(thread);", "  if (thread < 3u) { sort_block(thread); }", 1)
    with pytest.raises(Exception, match="uniform"):
        browser.compile("broken similarity", source, "begin")
