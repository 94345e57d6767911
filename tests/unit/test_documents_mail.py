"""E-mail made here: headers, bodies in every shape, attachments by their own readers, limits on depth and count."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from email.message import EmailMessage

import pytest
from fpdf import FPDF

from services.errors import CasemillError
from services.texts import DocumentText
from workers.documents.assembly import Draft
from workers.documents.eml import read_eml
from workers.documents.limits import MAX_ATTACHMENT_DEPTH, MAX_ATTACHMENTS, Limits
from workers.documents.readers import read_bytes

LIMITS = Limits(text_chars=100_000, pages=300, unpacked_bytes=2**20, memory_bytes=2**30, seconds=10)


def message(body: str = "Please find the lease attached.\n", subject: str = "Lease – Köln") -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Änne Müller <anne@example.com>"
    mail["To"] = "bob@example.com, carol@example.com"
    mail["Cc"] = "dan@example.com"
    mail["Subject"] = subject
    mail["Date"] = "Mon, 01 Jan 2024 10:00:00 +0100"
    mail["Message-ID"] = "<1@example.com>"
    mail.set_content(body)
    return mail


def two_page_pdf() -> bytes:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    for number in (1, 2):
        pdf.add_page()
        pdf.cell(0, 5, f"Lease agreement, page {number}.")
    return bytes(pdf.output())


def read(mail: EmailMessage | bytes, limits: Limits = LIMITS) -> DocumentText:
    return read_bytes(mail if isinstance(mail, bytes) else mail.as_bytes(), limits)


def pages(document: DocumentText) -> list[str]:
    return [document.text[page.start : page.end] for page in document.pages]


def test_headers_and_body_are_the_first_page() -> None:
    document = read(message())
    assert document.kind == "eml"
    assert pages(document) == [
        "From: Änne Müller <anne@example.com>\nTo: bob@example.com, carol@example.com\nCc: dan@example.com\n"
        "Date: Mon, 01 Jan 2024 10:00:00 +0100\nSubject: Lease – Köln\n\nPlease find the lease attached."
    ]


def test_attachments_are_read_on_pages_of_their_own() -> None:
    mail = message()
    mail.add_attachment(two_page_pdf(), maintype="application", subtype="octet-stream", filename="lease.bin")
    mail.add_attachment("Ein Vermerk über Mängel".encode("cp1252"), maintype="text", subtype="plain", filename="n.txt")
    document = read(mail)
    assert pages(document)[1:] == [
        "Attachment: lease.bin\n\nLease agreement, page 1.",
        "Lease agreement, page 2.",
        "Attachment: n.txt\n\nEin Vermerk über Mängel",
    ]
    assert document.page_at(document.text.index("page 2")) == 3


def test_an_attachment_that_cannot_be_read_is_a_note() -> None:
    mail = message()
    mail.add_attachment(b"\xffWPC\0\0", maintype="application", subtype="pdf", filename="old\u0085.wpd")
    mail.add_attachment(two_page_pdf()[:300], maintype="application", subtype="pdf", filename="cut.pdf")
    document = read(mail)
    assert len(document.pages) == 1
    assert "WordPerfect" in document.notes[0]
    assert document.notes[0].isprintable()
    assert "cut.pdf" in document.notes[1]


def test_an_attached_document_of_broken_packing_is_a_note() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("word/document.xml", "words " * 1000)
    data = bytearray(buffer.getvalue())
    data[60:90] = b"Z" * 30
    mail = message("the terms\n")
    mail.add_attachment(bytes(data), maintype="application", subtype="octet-stream", filename="lease.docx")
    document = read(mail)
    assert document.text.endswith("the terms")
    assert "lease.docx" in document.notes[0]


@pytest.mark.parametrize("error", [zlib.error, lzma.LZMAError, struct.error, AssertionError, TypeError, RecursionError])
def test_whatever_a_reader_trips_over_is_a_note(error: type[Exception]) -> None:
    def trips(kind: str, data: bytes, limits: Limits) -> Draft:
        raise error("words of the document")

    mail = message("the terms\n")
    mail.add_attachment("lease", filename="lease.txt")
    draft = read_eml(mail.as_bytes(), LIMITS, trips)
    assert draft.pages[0].endswith("the terms")
    assert draft.notes == (f"Attachment 'lease.txt' was not read: its reader failed ({error.__name__}).",)


def test_an_attachment_that_takes_all_memory_takes_the_message() -> None:
    def greedy(kind: str, data: bytes, limits: Limits) -> Draft:
        raise MemoryError

    mail = message()
    mail.add_attachment("lease", filename="lease.txt")
    with pytest.raises(MemoryError):
        read_eml(mail.as_bytes(), LIMITS, greedy)


def test_plain_text_is_preferred_and_html_stands_in() -> None:
    both = message("the plain one\n")
    both.add_alternative("<p>the html one</p>", subtype="html")
    assert "the plain one" in read(both).text
    assert "html" not in read(both).text
    blank = message(" \n")
    blank.add_alternative("<p>only<br>html</p>", subtype="html")
    assert read(blank).text.endswith("\n\nonly\nhtml")


def with_html(plain: str, html: str) -> DocumentText:
    mail = message(plain, subject="terms")
    mail.add_alternative(html, subtype="html")
    return read(mail)


def body(document: DocumentText) -> str:
    return document.text.partition("Subject: terms\n\n")[2]


def test_html_that_says_what_a_stub_does_not_is_read_with_a_note() -> None:
    document = with_html(
        "Your mail program does not show HTML. Please use another one to read this message.\n",
        "<p>We accept unlimited liability under clause 9.</p>",
    )
    assert "Your mail program" in body(document)
    assert "We accept unlimited liability under clause 9." in body(document)
    assert document.notes == ("The message has versions of its text that say different things: they were all read.",)


def test_html_that_goes_on_where_the_plain_text_stops_is_read_instead_with_a_note() -> None:
    document = with_html(
        "We accept\nthe terms …\n",
        "<p>We accept the <b>terms</b> of the lease,</p><p>provided that liability is unlimited under clause 9.</p>",
    )
    assert body(document) == "We accept the terms of the lease,\n\nprovided that liability is unlimited under clause 9."
    assert document.notes == ("The message's plain text lacks most of what another version says, which was read.",)


@pytest.mark.parametrize(
    ("plain", "html"),
    [
        ("We ACCEPT the\nterms of the lease.", "<p>We accept the terms of the lease. <a href='x'>Unsubscribe</a></p>"),
        ("The whole lease stands here, in plain text, at length.", "<p>the lease in plain text</p>"),
        ("我們接受租\n約的條款", "<p>我們接受租約的條款</p>"),
        ("only plain", "<img src='x.png'>"),
    ],
)
def test_html_that_says_the_same_or_less_is_left_out_without_a_note(plain: str, html: str) -> None:
    document = with_html(plain, html)
    assert body(document) == plain
    assert document.notes == ()


def test_attachments_within_an_alternative_are_found() -> None:
    raw = (
        b"From: a@x\nMessage-ID: <1@x>\nMIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=A\n\n"
        b"--A\nContent-Type: text/plain\n\nplain body\n--A\nContent-Type: multipart/mixed; boundary=B\n\n"
        b"--B\nContent-Type: text/html\n\n<p>html body</p>\n--B\nContent-Type: text/plain; name=terms.txt\n"
        b"Content-Disposition: attachment\n\nthe terms\n--B--\n--A--\n"
    )
    assert pages(read(raw)) == ["From: a@x\n\nplain body", "Attachment: terms.txt\n\nthe terms"]


def test_messages_within_messages_are_followed_to_their_depth() -> None:
    inner = message("innermost words\n", subject="level 0")
    for level in range(1, MAX_ATTACHMENT_DEPTH + 2):
        outer = message(f"words of level {level}\n", subject=f"level {level}")
        outer.add_attachment(inner)
        inner = outer
    document = read(inner)
    assert len(document.pages) == MAX_ATTACHMENT_DEPTH + 1
    assert "innermost words" not in document.text
    assert any("deep" in note for note in document.notes)


def test_a_message_attached_as_a_file_is_a_message() -> None:
    mail = message()
    mail.add_attachment(
        message("forwarded\n").as_bytes(), maintype="application", subtype="octet-stream", filename="f.eml"
    )
    assert pages(read(mail))[1].startswith("Attachment: f.eml\n\nFrom: Änne")


def test_more_attachments_than_allowed_are_counted() -> None:
    mail = message()
    for number in range(MAX_ATTACHMENTS + 3):
        mail.add_attachment(f"note {number}", filename=f"{number}.txt")
    document = read(mail)
    assert len(document.pages) == MAX_ATTACHMENTS + 1
    assert any(note.startswith("3 attachments") for note in document.notes)


def test_the_sum_of_all_parts_is_limited() -> None:
    mail = message()
    for number in range(4):
        mail.add_attachment("word " * 2000, filename=f"{number}.txt")
    small = Limits(text_chars=25_000, pages=300, unpacked_bytes=2**20, memory_bytes=2**30, seconds=10)
    with pytest.raises(CasemillError) as caught:
        read(mail, small)
    assert caught.value.code == "document_text_too_long"
    few = Limits(text_chars=100_000, pages=3, unpacked_bytes=2**20, memory_bytes=2**30, seconds=10)
    with pytest.raises(CasemillError) as caught:
        read(mail, few)
    assert caught.value.code == "document_too_many_pages"


def test_multiparts_that_nest_without_end_are_refused_or_harmless() -> None:
    head = b"From: a@x\nMessage-ID: <1@x>\nMIME-Version: 1.0\n"
    body = b"".join(b"Content-Type: multipart/mixed; boundary=B%d\n\n--B%d\n" % (n, n) for n in range(3000))
    with pytest.raises(CasemillError) as caught:
        read(head + body + b"Content-Type: text/plain\n\nhi\n")
    assert caught.value.code == "document_nested_too_deep"


def test_a_message_of_countless_parts_is_refused() -> None:
    head = b"From: a@x\nMessage-ID: <1@x>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n"
    with pytest.raises(CasemillError) as caught:
        read(head + b"--B\n\nx\n" * 6000 + b"--B--\n")
    assert caught.value.code == "document_expands_too_much"


def test_broken_headers_and_charsets_do_not_stop_the_reading() -> None:
    raw = (
        b"From: =?utf-8?q?broken?= <<>@@\nTo: undisclosed-recipients:;\nSubject: =?no-such?b?AAAA?= caf\xe9\n"
        b"Message-ID: <1@x>\nContent-Type: text/plain; charset=no-such\nContent-Disposition: inline; filename*=x'y\n\n"
        b"caf\xe9 terms\n"
    )
    document = read(raw)
    document.text.encode()
    assert "café terms" in document.text


def test_a_message_without_its_end_says_so() -> None:
    raw = (
        b"From: a@x\nMessage-ID: <1@x>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n"
        b"--B\nContent-Type: text/plain\n\nbody that stops in the mid"
    )
    assert any("cut off" in note for note in read(raw).notes)


def test_a_mailbox_is_named() -> None:
    one = b"From a@x Mon Jan  1 00:00:00 2024\nMessage-ID: <1@x>\nFrom: a@x\n\nbody\n\n"
    with pytest.raises(CasemillError, match="mailbox") as caught:
        read(one + one)
    assert caught.value.code == "document_type_unsupported"
