"""Real documents: the words of 30 contracts agree with their text files; each odd format is read or refused rightly."""

from __future__ import annotations

import json
import re
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

from services.errors import CasemillError
from services.settings import Settings
from services.texts import DocumentText
from workers.documents import ocr
from workers.documents.assembly import MOST
from workers.documents.limits import Limits
from workers.documents.reader import read_document
from workers.documents.readers import read_bytes

DATA = Path(__file__).parents[3] / "shared" / "data"
AGREEMENT = 0.98
CONTRACTS = sorted(path.stem for path in (DATA / "cuad" / "pdfs").glob("*.pdf"))
MANIFEST = DATA / "formats" / "manifest.jsonl"
FORMATS: list[dict[str, Any]] = (
    [json.loads(line) for line in MANIFEST.read_text(encoding="utf-8").splitlines()] if MANIFEST.exists() else []
)
REFUSED = {
    "files/scanned-opinion-2-pages.pdf": "document_needs_ocr",
    "files/scanned-opinion-1-page.pdf": "document_needs_ocr",
    "files/opinion.doc": "document_type_unsupported",
    "files/opinion.wpd": "document_type_unsupported",
}
LIMITS = Limits.of(Settings())

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the shared data is not here")


def words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def check_offsets(document: DocumentText) -> None:
    end = -1
    for page in document.pages:
        assert end < page.start <= page.end <= len(document.text)
        end = page.end
    end = 0
    for paragraph in document.paragraphs:
        piece = document.text[paragraph.start : paragraph.end]
        assert end <= paragraph.start
        assert piece
        assert piece == piece.strip()
        assert len(piece) <= MOST
        assert document.page_at(paragraph.start) == document.page_at(paragraph.end - 1)
        end = paragraph.end


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_words_of_a_contract_agree_with_its_text(contract: str) -> None:
    document = read_bytes((DATA / "cuad" / "pdfs" / f"{contract}.pdf").read_bytes(), LIMITS)
    expected = words((DATA / "cuad" / "texts" / f"{contract}.txt").read_text(encoding="utf-8"))
    found = words(document.text)
    common = sum((Counter(found) & Counter(expected)).values())
    assert common / len(expected) >= AGREEMENT, "words of the text are missing"
    assert common / len(found) >= AGREEMENT, "there are words that the text has not"
    in_order = sum(block.size for block in SequenceMatcher(None, expected, found, autojunk=False).get_matching_blocks())
    assert in_order / len(expected) >= AGREEMENT, "words stand in another order"
    check_offsets(document)
    sizes = sorted(paragraph.end - paragraph.start for paragraph in document.paragraphs)
    assert 40 <= sizes[len(sizes) // 2] <= 500, "paragraphs are no units of meaning"


@pytest.mark.parametrize("entry", FORMATS, ids=lambda entry: Path(entry["file"]).name)
def test_each_format_is_read_or_refused_with_the_right_reason(
    entry: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ocr, "program", lambda: None)
    path = DATA / "formats" / entry["file"]
    if entry["file"] in REFUSED:
        with pytest.raises(CasemillError) as caught:
            read_document(path, Settings(), name=path.name)
        assert caught.value.code == REFUSED[entry["file"]]
        return
    document = read_document(path, Settings(), name=path.name)
    flat = " ".join(document.text.split()).lower()
    for phrase in entry["must_contain"]:
        assert " ".join(phrase.split()).lower() in flat
    assert document.kind == path.suffix[1:]
    check_offsets(document)


def test_plain_texts_keep_their_offsets() -> None:
    paths = sorted((DATA / "cuad" / "texts").glob("*.txt"))[::40]
    paths += sorted((DATA / "unfair_terms" / "texts" / "de").glob("*.txt"))[::10]
    for path in paths:
        data = path.read_bytes()
        document = read_bytes(data, LIMITS)
        assert document.text == data.decode("utf-8")
        check_offsets(document)
