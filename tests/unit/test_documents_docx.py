"""Word documents made here: every place where text stands, tracked changes, bombs and broken packages."""

from __future__ import annotations

import io
import zipfile

import docx
import pytest

from services.errors import CasemillError
from services.texts import DocumentText
from workers.documents.limits import Limits
from workers.documents.readers import read_bytes

LIMITS = Limits(text_chars=100_000, pages=20, unpacked_bytes=40 * 2**20, memory_bytes=2**30, seconds=10)
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/wordprocessingml/main"
COMPATIBILITY = "http://schemas.openxmlformats.org/markup-compatibility/2006"


def package(body: str, *, space: str = WORD, **parts: str) -> bytes:
    opening = f'<w:document xmlns:w="{space}" xmlns:mc="{COMPATIBILITY}">'
    return zipped({"word/document.xml": f"{opening}<w:body>{body}</w:body></w:document>", **named(parts, space)})


def named(parts: dict[str, str], space: str = WORD) -> dict[str, str]:
    return {f"word/{name}.xml": f'<w:part xmlns:w="{space}">{content}</w:part>' for name, content in parts.items()}


def zipped(parts: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def p(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def read(data: bytes) -> DocumentText:
    return read_bytes(data, LIMITS)


def refused(data: bytes) -> CasemillError:
    with pytest.raises(CasemillError) as caught:
        read(data)
    return caught.value


def test_a_document_of_python_docx_is_read_with_tables_and_headers() -> None:
    document = docx.Document()
    document.add_heading("Supply Agreement", 1)
    document.add_paragraph("The Supplier shall deliver the Goods – at once.")
    table = document.add_table(rows=2, cols=2)
    for index, text in enumerate(("Term", "5 years", "Rent", "100 €")):
        table.cell(index // 2, index % 2).text = text
    document.sections[0].header.paragraphs[0].text = "Draft of May"
    document.sections[0].footer.paragraphs[0].text = "Confidential"
    buffer = io.BytesIO()
    document.save(buffer)
    result = read(buffer.getvalue())
    assert result.kind == "docx"
    assert result.text == (
        "Draft of May\n\nSupply Agreement\n\nThe Supplier shall deliver the Goods – at once.\n\n"
        "Term\t5 years\n\nRent\t100 €\n\nConfidential"
    )
    assert len(result.pages) == 1


@pytest.mark.parametrize("space", [WORD, STRICT])
def test_tracked_changes_are_read_as_accepted(space: str) -> None:
    result = read(
        package(
            "<w:p><w:r><w:t>Kept </w:t></w:r><w:ins><w:r><w:t>inserted</w:t></w:r></w:ins>"
            "<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del><w:moveFrom><w:r><w:t>away</w:t></w:r></w:moveFrom>"
            "<w:moveTo><w:r><w:t> moved</w:t></w:r></w:moveTo><w:r><w:instrText>PAGEREF</w:instrText></w:r></w:p>",
            space=space,
        )
    )
    assert result.text == "Kept inserted moved"
    assert any("tracked changes" in note for note in result.notes)


def test_signs_tabs_breaks_and_formatting() -> None:
    result = read(
        package(
            '<w:p><w:pPr><w:tabs><w:tab w:pos="1"/></w:tabs><w:numPr/></w:pPr><w:r><w:t xml:space="preserve">a </w:t>'
            "<w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t><w:noBreakHyphen/><w:t>d</w:t><w:softHyphen/>"
            '<w:sym w:font="Wingdings" w:char="F0FE"/></w:r></w:p>'
        )
    )
    assert result.text == "a \tb\nc-d☒"
    assert any("numbers paragraphs" in note for note in result.notes)


def test_foot_and_endnotes_follow_with_their_numbers() -> None:
    reference = '<w:footnoteReference w:id="7"/>'
    result = read(
        package(
            f"<w:p><w:r><w:t>The price</w:t>{reference}<w:t> is fixed.</w:t></w:r></w:p>",
            footnotes=f'<w:footnote w:type="separator" w:id="0">{p("---")}</w:footnote>'
            f'<w:footnote w:id="7">{p("Net of tax.")}</w:footnote>',
            comments=f"<w:comment>{p('why?')}</w:comment>",
        )
    )
    assert result.text == "The price[1] is fixed.\n\n[1] Net of tax."
    assert any("1 comments" in note for note in result.notes)


def test_text_boxes_are_read_once() -> None:
    box = f"<w:txbxContent>{p('In the box')}</w:txbxContent>"
    result = read(
        package(
            f"<w:p><w:r><mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback>"
            "</mc:AlternateContent><w:t>Around it</w:t></w:r></w:p>"
        )
    )
    assert result.text == "In the box\n\nAround it"


def test_tables_that_lay_out_paragraphs_give_these() -> None:
    cell = f"<w:tc>{p('First clause.')}{p('Second clause.')}</w:tc>"
    inner = f"<w:tbl><w:tr><w:tc>{p('x')}</w:tc><w:tc>{p('y')}</w:tc></w:tr></w:tbl>"
    result = read(package(f"<w:tbl><w:tr>{cell}<w:tc>{inner}</w:tc></w:tr></w:tbl>"))
    assert result.text == "First clause.\n\nSecond clause.\n\nx\ty"


def test_a_part_that_unpacks_too_far_is_refused() -> None:
    bomb = package("<w:p><w:r><w:t>" + "lorem ipsum dolor " * 3_000_000 + "</w:t></w:r></w:p>")
    assert len(bomb) < 300_000
    assert refused(bomb).code == "document_expands_too_much"


def test_an_absurd_ratio_is_refused_within_the_size() -> None:
    data = zipped({"word/document.xml": "<a/>", "word/media/image1.bmp": "\0" * (30 * 2**20)})
    assert refused(data).code == "document_expands_too_much"


def test_a_header_that_lies_about_its_size_does_not_help() -> None:
    data = bytearray(zipped({"word/document.xml": "<a/>", "word/media/image1.bmp": "\0" * (50 * 2**20)}))
    size = (50 * 2**20).to_bytes(4, "little")
    for at in (data.find(size), data.rfind(size)):
        if at >= 0:
            data[at : at + 4] = (1000).to_bytes(4, "little")
    assert refused(bytes(data)).code in ("document_expands_too_much", "document_damaged")


def test_entities_that_explode_are_refused() -> None:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    xml = f'<!DOCTYPE d [<!ENTITY l0 "ha">{entities}]><w:document xmlns:w="{WORD}">{p("&l9;")}</w:document>'
    assert refused(zipped({"word/document.xml": xml})).code == "document_damaged"


def test_entities_never_reach_for_files() -> None:
    xml = (
        f'<!DOCTYPE d [<!ENTITY f SYSTEM "file:///etc/hostname">]><w:document xmlns:w="{WORD}">{p("&f;")}</w:document>'
    )
    assert refused(zipped({"word/document.xml": xml})).code == "document_damaged"


@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_a_package_that_was_cut_off_is_damaged(part: float) -> None:
    data = package(p("The deed"))
    assert refused(data[: int(len(data) * part)]).code == "document_damaged"


def test_broken_parts_are_damaged() -> None:
    assert refused(zipped({"word/document.xml": "<w:document"})).code == "document_damaged"
    assert refused(zipped({"word/styles.xml": "<a/>"})).code == "document_damaged"
    data = bytearray(package(p("The deed is long enough to be packed. " * 40)))
    at = data.find(b"word/document.xml") + 40
    data[at : at + 12] = b"\xff" * 12
    assert refused(bytes(data)).code == "document_damaged"
    deep = "<w:x>" * 5000 + "</w:x>" * 5000
    assert refused(package(deep)).code == "document_damaged"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("broken", [False, True])
def test_parts_packed_as_no_word_document_packs_them_are_damaged(method: int, broken: bool) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("word/document.xml", p("words ") * 500)
    data = bytearray(buffer.getvalue())
    if broken:
        start = 30 + len("word/document.xml")
        data[start + 12 : start + 40] = b"Z" * 28
    assert refused(bytes(data)).code == "document_damaged"


@pytest.mark.parametrize(("method", "header"), [(zipfile.ZIP_DEFLATED, 0), (zipfile.ZIP_LZMA, 9)])
def test_a_broken_part_that_may_name_the_type_is_damage(method: int, header: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("mimetype", "words " * 30)
        archive.writestr("word/document.xml", p("words"))
    data = bytearray(buffer.getvalue())
    start = 30 + len("mimetype") + header
    data[start : start + 12] = b"\xff" * 12
    assert refused(bytes(data)).code == "document_damaged"


def test_too_much_text_and_none() -> None:
    assert refused(package(p("word " * 21_000))).code == "document_text_too_long"
    assert refused(package("<w:p/>")).code == "document_empty"


def test_the_main_part_may_have_another_name() -> None:
    types = (
        '<Types><Override PartName="/word/document2.xml" ContentType="application/vnd.openxmlformats-officedocument.'
        'wordprocessingml.document.main+xml"/></Types>'
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("[Content_Types].xml", types)
        archive.writestr("word/document2.xml", f'<w:document xmlns:w="{WORD}">{p("The deed")}</w:document>')
    assert read(buffer.getvalue()).text == "The deed"
