"""Scanned pages: read by tesseract where it is installed, named where that fails, refused where nothing is left."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import psutil
import pypdfium2
import pytest
from fpdf import FPDF

from services.errors import CasemillError
from services.settings import Settings
from workers.documents import ocr
from workers.documents.limits import Limits
from workers.documents.reader import read_document, reader_version
from workers.documents.readers import read_bytes

FORMATS = Path(__file__).parents[3] / "shared" / "data" / "formats"
SCANS = ("files/scanned-opinion-1-page.pdf", "files/scanned-opinion-2-pages.pdf")
CLAUSE = "This Agreement is governed by the laws of Delaware."
TSV = """\
level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext
1\t1\t0\t0\t0\t0\t0\t0\t10\t10\t-1\t
5\t1\t1\t1\t1\t1\t0\t0\t1\t1\t96.5\tThe
5\t1\t1\t1\t1\t2\t0\t0\t1\t1\t90\t"Fee"
5\t1\t1\t1\t2\t1\t0\t0\t1\t1\t80\tis
5\t1\t2\t1\t1\t1\t0\t0\t1\t1\t40.5\tdue.
"""


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A page of text, two pictures, and a page of text."""
    pdf = FPDF()
    picture = tmp_path / "picture.png"
    drawn = pypdfium2.PdfDocument.new()
    drawn.new_page(200, 280).render(scale=1).to_pil().save(picture)
    for scanned in (False, True, True, False):
        pdf.add_page()
        pdf.set_font("Helvetica", size=12)
        if scanned:
            pdf.image(picture, x=0, y=0, w=210, h=297)
        else:
            pdf.multi_cell(0, 8, CLAUSE)
    path = tmp_path / "mixed.pdf"
    path.write_bytes(bytes(pdf.output()))
    return path


def instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Let a shell script run in place of tesseract."""
    if sys.platform == "win32":
        pytest.skip("a shell script stands for tesseract")
    path = tmp_path / "tesseract"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o700)
    monkeypatch.setattr(ocr, "program", lambda: str(path))


def refused(path: Path, settings: Settings) -> CasemillError:
    with pytest.raises(CasemillError) as caught:
        read_document(path, settings)
    return caught.value


@pytest.mark.parametrize("name", SCANS)
def test_tesseract_reads_a_scan(name: str) -> None:
    if not FORMATS.exists():
        pytest.skip("the shared data is not here")
    if not shutil.which("tesseract"):
        pytest.skip("tesseract is not installed: apt-get install tesseract-ocr")
    document = read_document(FORMATS / name, Settings())
    entries = map(json.loads, (FORMATS / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    (wanted,) = [entry["must_contain"] for entry in entries if entry["file"] == name]
    flat = " ".join(document.text.split()).lower()
    for phrase in wanted:
        assert " ".join(phrase.split()).lower() in flat
    (note,) = document.notes
    assert note.startswith("Page")
    assert "read by OCR (tesseract, eng; mean confidence 9" in note
    assert document.unread == ()


def test_words_are_joined_by_line_and_paragraph() -> None:
    assert ocr.parse_words(TSV) == ocr.Recognised('The "Fee"\nis\n\ndue.', (96.5, 90.0, 80.0, 40.5))


def test_pages_among_others_are_read_in_their_place(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tsv").write_text(TSV, encoding="utf-8")
    instead(
        monkeypatch, tmp_path, f'[ "$4" = eng+deu ] && [ -z "$HOME" ] && cat > {tmp_path}/seen && cat {tmp_path}/tsv'
    )
    document = read_document(mixed, Settings(ocr_languages="eng+deu"))
    texts = [document.text[page.start : page.end] for page in document.pages]
    assert texts == [CLAUSE, 'The "Fee"\nis\n\ndue.', 'The "Fee"\nis\n\ndue.', CLAUSE]
    (note,) = document.notes
    assert note.startswith("Pages 2-3 are a scan, read by OCR (tesseract, eng+deu; mean confidence 77 %)")
    assert (tmp_path / "seen").read_bytes().startswith(b"P5 2481 3508 255\n")


@pytest.mark.parametrize("script", ["exit 1", "exec sleep 60", "echo nonsense", "exec yes"])
def test_where_tesseract_fails_the_pages_are_named(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    instead(monkeypatch, tmp_path, script)
    document = read_document(mixed, Settings(ocr_page_seconds=2))
    assert document.unread == (2, 3)
    (note,) = document.notes
    assert note.startswith("Pages 2-3 are a scan, not read: OCR failed or took longer than the 2 s")
    assert not [child for child in psutil.Process().children() if child.name() in ("sleep", "yes", "tesseract")]


def test_a_scan_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixed: Path) -> None:
    scan = pypdfium2.PdfDocument.new()
    scan.import_pages(pypdfium2.PdfDocument(mixed), [1])
    path = tmp_path / "scan.pdf"
    scan.save(path)
    instead(monkeypatch, tmp_path, "exit 1")
    error = refused(path, Settings())
    assert (error.code, "CASEMILL_OCR_LANGUAGES" in error.detail) == ("document_needs_ocr", True)
    instead(monkeypatch, tmp_path, f"cat > /dev/null; head -n 2 {tmp_path}/tsv")
    (tmp_path / "tsv").write_text(TSV, encoding="utf-8")
    assert refused(path, Settings()).code == "document_empty"
    monkeypatch.setattr(ocr, "program", lambda: None)
    error = refused(path, Settings())
    assert (error.code, "install tesseract" in error.detail) == ("document_needs_ocr", True)


def test_ocr_is_cancelled(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    instead(monkeypatch, tmp_path, f"touch {started}; exec sleep 60")
    with pytest.raises(CasemillError) as caught:
        read_document(mixed, Settings(), cancelled=started.exists)
    assert caught.value.code == "cancelled"


def test_a_scan_attached_to_a_message_is_noted(mixed: Path) -> None:
    scan = pypdfium2.PdfDocument.new()
    scan.import_pages(pypdfium2.PdfDocument(mixed), [1])
    path = mixed.with_name("scan.pdf")
    scan.save(path)
    message = MESSAGE % path.read_bytes().hex(" ").replace(" ", "=").upper().encode()
    document = read_bytes(message, Limits(100_000, 100, 1 << 24, 1 << 30, 60.0, ocr=True))
    assert document.unread == ()
    assert [note for note in document.notes if "OCR" in note]


MESSAGE = b"""\
From: a@example.org
To: b@example.org
Subject: A scan
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

Please find it attached.
--b
Content-Type: application/pdf; name=scan.pdf
Content-Disposition: attachment; filename=scan.pdf
Content-Transfer-Encoding: quoted-printable

=%s
--b--
"""


def test_texts_are_read_anew_when_tesseract_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "program", lambda: None)
    without = reader_version(Settings())
    monkeypatch.setattr(ocr, "program", lambda: "/usr/bin/tesseract")
    assert len({without, reader_version(Settings()), reader_version(Settings(ocr_languages="deu"))}) == 3
