"""PDFs made here: paragraphs by layout, pages, broken words, forms, scans, and every way a PDF can be refused."""

from __future__ import annotations

from typing import Any

import pytest
from fpdf import FPDF

from services.errors import CasemillError
from services.texts import DocumentText
from workers.documents.limits import Limits
from workers.documents.pdf_lines import Hyphens, clean, join_lines
from workers.documents.pdfium import Line
from workers.documents.readers import read_bytes

LIMITS = Limits(text_chars=100_000, pages=20, unpacked_bytes=2**20, memory_bytes=2**30, seconds=10)
CLAUSE = (
    "This Agreement shall be governed by and construed in accordance with the laws of the State of Delaware, without "
    "regard to its conflict of laws principles, and the parties submit to the courts of that State. "
)


def page_of(*paragraphs: str, pages: int = 1) -> FPDF:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    for number in range(1, pages + 1):
        pdf.add_page()
        for paragraph in paragraphs:
            pdf.multi_cell(0, 5, paragraph.format(number=number), new_x="LMARGIN", new_y="NEXT")
            pdf.ln(4)
    return pdf


def picture() -> Any:
    from PIL import Image

    return Image.new("RGB", (200, 280), (210, 200, 190))


def read(pdf: FPDF | bytes) -> DocumentText:
    return read_bytes(pdf if isinstance(pdf, bytes) else bytes(pdf.output()), LIMITS)


def refused(pdf: FPDF | bytes) -> CasemillError:
    with pytest.raises(CasemillError) as caught:
        read(pdf)
    return caught.value


def raw_pdf(*objects: bytes) -> bytes:
    """A PDF of these objects, numbered from 1, the first one the catalogue."""
    out = bytearray(b"%PDF-1.7\n")
    offsets: list[int] = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<</Size %d /Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def stream(content: bytes, entries: bytes = b"") -> bytes:
    return b"<<%s /Length %d>>\nstream\n%s\nendstream" % (entries, len(content), content)


def test_paragraphs_follow_the_layout_and_stand_on_their_pages() -> None:
    document = read(
        page_of("{number}. Governing Law and Jurisdiction", CLAUSE, "(a) Notices shall be in writing.", pages=3)
    )
    assert document.kind == "pdf"
    assert [page.number for page in document.pages] == [1, 2, 3]
    assert document.notes == ()
    texts = [document.text[piece.start : piece.end] for piece in document.paragraphs]
    assert len(texts) == 9
    assert [document.page_at(piece.start) for piece in document.paragraphs] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert texts[0] == "1. Governing Law and Jurisdiction"
    assert " ".join(texts[1].split()) == CLAUSE.strip()
    assert "\n" in texts[1]
    assert texts[5] == "(a) Notices shall be in writing."


def line(text: str, left: float, right: float, bottom: float) -> Line:
    return Line(text, (left, bottom, left + 5, bottom + 10), (right - 5, bottom, right, bottom + 10))


def test_first_line_indents_part_paragraphs_and_hanging_ones_do_not() -> None:
    page = [
        line("The Buyer shall pay the price when the goods have arrived at", 90, 500, 700),
        line("the place that the parties have agreed upon in writing, and so forth.", 72, 500, 688),
        line("Title passes on payment, and on nothing else in this world", 90, 500, 676),
        line("that may be thought of by counsel for either of the parties here.", 72, 498, 664),
        line("(a) a hanging item that goes on for the whole width of this page", 72, 500, 652),
        line("Continued Here under the text of the item, not under its number.", 100, 499, 640),
    ]
    assert [part.split()[0] for part in join_lines(page).split("\n\n")] == ["The", "Title", "(a)"]


def test_double_spacing_is_no_paragraph_break() -> None:
    page = [
        line("every line of this brief reaches the right margin of the page,", 72, 500, 700 - 24 * n) for n in range(9)
    ]
    page += [
        line("but a quotation is set with single spacing in between its lines", 90, 500, 470 - 12 * n) for n in range(5)
    ]
    assert join_lines(page).count("\n\n") == 1


def test_hyphens_at_line_ends_go_only_where_the_document_knows_the_word() -> None:
    text = clean(
        "the agreement and this agree\ufffement, a non\ufffeexclusive\u00a0right, anti\u00adtrust, simul\x02taneous act"
    )
    assert Hyphens([text]).mend(text) == (
        "the agreement and this agreement,\na non-exclusive\nright, anti-trust, simul-taneous\nact"
    )


def test_words_hyphenated_by_pdfium_are_mended() -> None:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    pdf.add_page()
    for words in (
        "The license is a non-",
        "exclusive license of the Software.",
        "The Agree-",
        "ment binds the Agreement heirs.",
    ):
        pdf.cell(0, 5, words, new_x="LMARGIN", new_y="NEXT")
    words = read(pdf).text.split()
    assert "non-exclusive" in words
    assert words.count("Agreement") == 2


def test_bytes_before_the_header_do_not_matter() -> None:
    data = bytes(page_of(CLAUSE).output())
    for before in (b"\r\n", b"\0" * 900, b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n\r\n" + b"\n" * 1500):
        assert "Delaware" in read(before + data).text


def test_what_was_filled_into_a_form_is_read() -> None:
    appearance = stream(
        b"/Tx BMC q BT /F1 12 Tf 2 4 Td (Filled by Acme Corporation) Tj ET Q EMC",
        b"/Type /XObject /Subtype /Form /BBox [0 0 300 20] /Resources <</Font <</F1 5 0 R>>>>",
    )
    data = raw_pdf(
        b"<</Type /Catalog /Pages 2 0 R /AcroForm <</Fields [6 0 R] /DA (/F1 12 Tf) /DR <</Font <</F1 5 0 R>>>>>>>>",
        b"<</Type /Pages /Kids [3 0 R] /Count 1>>",
        b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Annots [6 0 R]"
        b" /Resources <</Font <</F1 5 0 R>>>>>>",
        stream(b"BT /F1 12 Tf 72 720 Td (The Licensee is:) Tj ET"),
        b"<</Type /Font /Subtype /Type1 /BaseFont /Helvetica>>",
        b"<</Type /Annot /Subtype /Widget /FT /Tx /T (licensee) /V (Filled by Acme Corporation) /F 4 /P 3 0 R"
        b" /Rect [180 714 480 734] /DA (/F1 12 Tf) /AP <</N 7 0 R>>>>",
        appearance,
    )
    text = read(data).text
    assert "The Licensee is:" in text
    assert "Filled by Acme Corporation" in text


def test_a_scan_needs_ocr_and_says_how_many_pages() -> None:
    pdf = FPDF()
    for _ in range(2):
        pdf.add_page()
        pdf.image(picture(), x=0, y=0, w=210, h=297)
    error = refused(pdf)
    assert error.code == "document_needs_ocr"
    assert "2 pages" in error.detail


def test_scanned_pages_among_others_are_named() -> None:
    pdf = page_of(CLAUSE)
    pdf.add_page()
    pdf.image(picture(), x=0, y=0, w=210, h=297)
    pdf.add_page()
    pdf.image(picture(), x=0, y=0, w=210, h=297)
    pdf.text(10, 10, "Case 1:24-cv-1 Filed 03/04/24 Page 3 of 3")
    document = read(pdf)
    assert len(document.pages) == 3
    assert [note for note in document.notes if "Page 2" in note and "OCR" in note]
    assert [note for note in document.notes if "Page 3" in note and "image" in note]
    assert "Delaware" in document.text


def test_empty_pages_are_neither_scans_nor_text() -> None:
    pdf = FPDF()
    pdf.add_page()
    assert refused(pdf).code == "document_empty"


def test_an_encrypted_pdf_is_refused_and_one_without_user_password_is_read() -> None:
    locked = page_of(CLAUSE)
    locked.set_encryption(owner_password="owner", user_password="user")
    assert refused(locked).code == "document_encrypted"
    open_to_all = page_of(CLAUSE)
    open_to_all.set_encryption(owner_password="owner")
    assert "Delaware" in read(open_to_all).text


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.97])
def test_a_pdf_that_was_cut_off_is_damaged_wherever_the_cut(part: float) -> None:
    data = bytes(page_of(CLAUSE, pages=10).output())
    assert refused(data[: int(len(data) * part)]).code == "document_damaged"


def test_a_pdf_of_noise_is_damaged() -> None:
    assert refused(b"%PDF-1.7\n" + bytes(range(256)) * 40).code == "document_damaged"


def test_too_many_pages_and_too_much_text() -> None:
    assert refused(page_of("page {number}", pages=21)).code == "document_too_many_pages"
    few = Limits(text_chars=500, pages=20, unpacked_bytes=2**20, memory_bytes=2**30, seconds=10)
    with pytest.raises(CasemillError) as caught:
        read_bytes(bytes(page_of(CLAUSE, pages=9).output()), few)
    assert caught.value.code == "document_text_too_long"


def test_embedded_files_are_named() -> None:
    pdf = page_of(CLAUSE)
    pdf.embed_file(basename="annex.txt", bytes=b"the annex")
    assert any("embedded" in note for note in read(pdf).notes)


def test_a_cut_that_pdfium_would_mend_is_damaged_too() -> None:
    page = b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R /Resources <</Font <</F1 5 0 R>>>>>>"
    data = raw_pdf(
        b"<</Type /Catalog /Pages 2 0 R>>",
        b"<</Type /Pages /Kids [3 0 R 6 0 R] /Count 2>>",
        page % 4,
        stream(b"BT /F1 12 Tf 72 720 Td (Page one is whole.) Tj ET"),
        b"<</Type /Font /Subtype /Type1 /BaseFont /Helvetica>>",
        page % 7,
        stream(b"BT /F1 12 Tf 72 720 Td (Page two is whole.) Tj ET"),
    )
    assert "Page two" in read(data).text
    # A trailer at the front, as linearized files have one, is enough for PDFium to go on without page two's text.
    cut = data[: data.index(b"7 0 obj")].replace(b"%PDF-1.7\n", b"%PDF-1.7\ntrailer\n<</Size 8 /Root 1 0 R>>\n")
    assert refused(cut).code == "document_damaged"
