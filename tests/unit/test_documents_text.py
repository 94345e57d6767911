"""Type by content, encodings, plain text, HTML and RTF."""

from __future__ import annotations

import io
import zipfile

import pytest

from services.errors import CasemillError, DocumentError, UnsupportedMedia
from services.texts import DocumentText
from workers.documents.decoding import decode
from workers.documents.limits import Limits
from workers.documents.readers import read_bytes
from workers.documents.sniff import sniff

LIMITS = Limits(text_chars=100_000, pages=20, unpacked_bytes=2**20, memory_bytes=2**30, seconds=10)
GERMAN = "Die Haftung für Mängel beträgt höchstens 500 € – Gerichtsstand ist Köln. § 7 „Übergabe“ bleibt unberührt.\n"
RUSSIAN = "Настоящий договор регулируется законодательством Российской Федерации и вступает в силу немедленно. " * 3
JAPANESE = "本契約は日本法に準拠し、東京地方裁判所を専属的合意管轄裁判所とする。甲及び乙は誠実に協議する。" * 3


def read(data: bytes) -> DocumentText:
    return read_bytes(data, LIMITS)


def refused(data: bytes) -> CasemillError:
    with pytest.raises(CasemillError) as caught:
        read(data)
    return caught.value


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7\n", "pdf"),
        (b"\r\n\xff\x00junk%PDF-1.4\n1 0 obj\n", "pdf"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n\r\n%PDF-1.4\n1 0 obj\n", "pdf"),
        (b"{\\rtf1 hello}", "rtf"),
        (b"<!DOCTYPE html><p>x", "html"),
        ("\ufeff<html><body>x".encode("utf-16-le"), "html"),
        (b"<?xml version='1.0'?>\n<html xmlns='http://www.w3.org/1999/xhtml'>", "html"),
        (b"<DOCUMENT>\n<TYPE>EX-10.1\n<TEXT>\n<HTML><BODY>deed</BODY></HTML>", "html"),
        (b"<!-- saved --><div>terms</div>", "html"),
        (b"Message-ID: <1@x>\nFrom: a@x\nSubject: s\n\nbody", "eml"),
        (b"From a@x Mon Jan  1 00:00:00 2024\nReceived: by x\nFrom: a@x\n\nbody", "eml"),
        (b"FROM: Counsel\nTO: File\nDATE: 3 May\nSUBJECT: Lease\n\nMemorandum.", "txt"),
        (b"Definitions: in this deed the following apply.\n", "txt"),
        (b"The header %PDF-1.4 marks a PDF, says this text.", "txt"),
        (b"BM is short for Business Manager; MZ for nothing.", "txt"),
        (b"<Buyer> shall pay <Seller> the sum of", "txt"),
        (GERMAN.encode("cp1252"), "txt"),
    ],
)
def test_the_content_tells_the_type(data: bytes, kind: str) -> None:
    assert sniff(data) == kind


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\xffWPC\x16\x0f\0\0", "WordPerfect"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 500 + "WordDocument".encode("utf-16-le"), "Word 97-2003"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 500 + "Workbook".encode("utf-16-le"), "Excel"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 500 + "__substg1.0_0".encode("utf-16-le"), "Outlook"),
        (zipped(xl__workbook="x"), "Excel"),
        (zipped(ppt__presentation="x"), "PowerPoint"),
        (zipped(mimetype="application/vnd.oasis.opendocument.text"), "OpenDocument"),
        (zipped(a="x"), "ZIP"),
        (b"\x89PNG\r\n\x1a\n\0\0", "PNG"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC"),
        (b"MZ\x90\0\x03\0\0\0", "program"),
        (b"\x7fELF\x02\x01", "program"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "7-Zip"),
        (b"%!PS-Adobe-3.0\n", "PostScript"),
        (b"GGUF\x03\0\0\0", "GGUF"),
    ],
)
def test_known_types_that_are_not_read_are_named(data: bytes, named: str) -> None:
    with pytest.raises(UnsupportedMedia, match=named) as caught:
        sniff(data)
    assert caught.value.code == "document_type_unsupported"
    assert caught.value.http_status == 415


@pytest.mark.parametrize(
    "data", [bytes(range(256)) * 8, b"plain text with a \0 in it", b"\x01\x02\x03\x04\x05\x06\x07"]
)
def test_binary_content_is_unknown(data: bytes) -> None:
    error = refused(data)
    assert isinstance(error, UnsupportedMedia)
    assert error.code == "document_type_unknown"


@pytest.mark.parametrize("data", [b"", b"  \r\n\t", b"\xef\xbb\xbf", b"<html><body><script>x</script></body></html>"])
def test_what_holds_no_text_is_empty(data: bytes) -> None:
    assert refused(data).code == "document_empty"


def test_a_password_protected_office_file_is_encrypted() -> None:
    data = bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 500 + "EncryptedPackage".encode("utf-16-le")
    assert refused(data).code == "document_encrypted"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_german_text_in_any_encoding_is_read_as_it_stands(encoding: str) -> None:
    assert read((GERMAN * 3).encode(encoding)).text == GERMAN * 3


@pytest.mark.parametrize(
    ("text", "encoding"), [(RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"), (JAPANESE, "shift_jis"), (JAPANESE, "euc-jp")]
)
def test_other_scripts_are_guessed_and_the_guess_is_noted(text: str, encoding: str) -> None:
    document = read(text.encode(encoding))
    assert document.text == text
    assert "encoding" in document.notes[0]


def test_a_wrong_declaration_gives_way_to_the_bytes() -> None:
    decoded = decode("Müller".encode(), "us-ascii")
    assert decoded is not None
    assert (decoded.text, decoded.guessed) == ("Müller", False)
    assert decode(b"abc", "no-such-charset") is not None


def test_plain_text_keeps_every_character_and_its_form_feeds_are_pages() -> None:
    source = "Page one of the deed.\r\n\r\n  Indented text here.\fPage two of the deed.\r\n\f"
    document = read(source.encode())
    assert document.text == source
    assert [document.text[page.start : page.end] for page in document.pages] == [
        "Page one of the deed.\r\n\r\n  Indented text here.",
        "Page two of the deed.\r\n\f",
    ]
    assert document.page_at(source.index("two")) == 2


def test_text_beyond_the_limits_is_refused_whole() -> None:
    assert refused(b"word " * 20_001).code == "document_text_too_long"
    assert refused(b"word\f" * 25 + b"end").code == "document_too_many_pages"
    assert refused(b"<p>" + b"word " * 20_001).code == "document_text_too_long"
    assert refused(b"{\\rtf1 " + b"word " * 20_001 + b"}").code == "document_text_too_long"


def test_html_gives_its_visible_text_in_paragraphs() -> None:
    document = read(
        b"<html><head><title>t</title><style>p{}</style><meta charset=iso-8859-1></head><body>"
        b"<h1>Lease &amp; Licence</h1><p>The   rent\n is <b>\x80 5</b>,<br>payable monthly.</p>tail"
        b"<script>alert('evil')</script><table><tr><td>Term</td><td><i>5</i> years</td></tr>"
        b"<tr><td>Rent</td></tr></table>"
        b"<ul><li>first<li>second</ul><!-- hidden --><template>no</template></body></html>"
    )
    assert document.kind == "html"
    assert document.text == (
        "Lease & Licence\n\nThe rent is € 5,\npayable monthly.\n\ntail\n\nTerm\t5 years\n\nRent\n\nfirst\n\nsecond"
    )


def nested(levels: int) -> bytes:
    return b"<html>" + b"<div>" * levels + b"governing law" + b"</div>" * levels + b"<p>after it</p>"


def test_html_that_nests_deep_is_read_whole_or_refused() -> None:
    assert read(nested(1500)).text == "governing law\n\nafter it"
    assert refused(nested(10_000)).code == "document_damaged"


def test_html_entities_that_explode_elsewhere_are_harmless() -> None:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    source = f'<!DOCTYPE html [<!ENTITY l0 "ha">{entities}]><html><body><p>&l11; fine</p></body></html>'
    assert len(read(source.encode()).text) < len(source)


def test_rtf_gives_text_footnotes_and_accepts_changes() -> None:
    source = (
        r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial;}}"
        r"{\colortbl;\red0;}{\*\generator Writer;}{\info{\author Somebody}}"
        r"{\header Draft of May\par}\f0 The B\'fccher \u8211 ?clause{\footnote See annex.} stands.\par "
        r"{\listtext 1.\tab}Kept {\deleted gone }{\revised new}\par {\f1 \'c4\'ee\'e3}\par "
        r"\u-10179?\u-8704? end{\field{\*\fldinst HYPERLINK x}{\fldrslt link}}\~here\page Second\line page"
        r"{\pict\pngblip 89504e47}\cell A\cell B\row }ignored"
    )
    document = read(source.encode("ascii"))
    assert document.kind == "rtf"
    first, second = (document.text[page.start : page.end] for page in document.pages)
    assert first == "The Bücher –clause[1] stands.\n\n1.\tKept new\n\nДог\n\n😀 endlink\u00a0here"
    assert second == "Second\npage\tA\tB\n\nDraft of May\n\n[1] See annex."
    assert document.notes


def test_rtf_binary_data_is_skipped_and_a_cut_off_file_is_damaged() -> None:
    assert read(b"{\\rtf1 a{\\pict\\bin5 }}{\\\\}b}").text == "ab"
    assert refused(b"{\\rtf1 the deed is cut").code == "document_damaged"
    assert refused(b"{\\rtf1 " + b"{" * 20_000).code == "document_damaged"


@pytest.mark.parametrize("unit", [0xD800, 0xDC00, 0])
def test_rtf_lone_surrogates_and_nul_never_leave_the_reader(unit: int) -> None:
    text = read(b"{\\rtf1 before\\u%d?after}" % unit).text
    text.encode()
    assert "\0" not in text
    assert text.startswith("before")
    assert text.endswith("after")


def test_errors_name_what_to_do() -> None:
    error = refused(b"\xffWPC\x16\x0f\0\0")
    assert ".docx" in error.detail
    assert isinstance(refused(b""), DocumentError)
