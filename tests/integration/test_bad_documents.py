"""Documents that nobody can read: each refused at upload with its reason, nothing kept, the worker alive after."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
from docx import Document
from fpdf import FPDF

from tests.integration.conftest import Running


def pdf(pages: int = 1, password: str | None = None) -> bytes:
    document = FPDF()
    document.set_font("Helvetica", size=12)
    if password:
        document.set_encryption(owner_password="owner", user_password=password)
    for page in range(pages):
        document.add_page()
        document.cell(text=f"This is page {page + 1} of an agreement.")
    return bytes(document.output())


def many_pages() -> bytes:
    """A PDF of 5,000 pages that is quick to make: one page object a page, one content stream for all."""
    kids = " ".join(f"{number + 5} 0 R" for number in range(5000))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count 5000 >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        "<< /Length 44 >>\nstream\nBT /F1 12 Tf 72 720 Td (A page of text) Tj ET \nendstream",
        *[
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        ]
        * 5000,
    ]
    body, offsets = b"%PDF-1.4\n", []
    chunks = [body]
    length = len(body)
    for number, content in enumerate(objects, 1):
        offsets.append(length)
        chunk = f"{number} 0 obj\n{content}\nendobj\n".encode()
        chunks.append(chunk)
        length += len(chunk)
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{length}\n%%EOF\n"
    chunks.append(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode())
    return b"".join(chunks)


def bomb() -> bytes:
    source = io.BytesIO()
    Document().save(source)
    target = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            if item.filename != "word/document.xml":
                new.writestr(item, old.read(item))
        head = b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>'
        with new.open("word/document.xml", "w", force_zip64=True) as part:
            part.write(head)
            for _ in range(700):
                part.write(b"a" * 2**20)
            part.write(b"</w:t></w:r></w:p></w:body></w:document>")
    return target.getvalue()


CASES: list[tuple[str, Callable[[], bytes], int, str]] = [
    ("empty.pdf", lambda: b"", 422, "document_empty"),
    ("locked.pdf", lambda: pdf(password="secret"), 422, "document_encrypted"),
    ("cut.pdf", lambda: pdf(3)[: len(pdf(3)) // 2], 422, "document_damaged"),
    ("endless.pdf", many_pages, 422, "document_too_many_pages"),
    ("bomb.docx", bomb, 422, "document_expands_too_much"),
    ("huge.txt", lambda: b"word " * (10 * 2**20), 422, "document_text_too_long"),
    ("noise.bin", lambda: bytes(range(256)) * 64, 415, "document_type_unknown"),
    ("nul.txt", lambda: b"This agreement\x00\x01\x02\x00 has no end" * 9, 415, "document_type_unknown"),
]


@pytest.mark.parametrize(("name", "make", "status", "code"), CASES, ids=[case[0] for case in CASES])
def test_an_unreadable_document_is_refused_with_its_reason(
    fake_stack: Running, name: str, make: Callable[[], bytes], status: int, code: str
) -> None:
    answer = fake_stack.upload(make(), name)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert answer.headers["content-type"] == "application/problem+json"
    assert fake_stack.upload(b"A plain agreement, read after the bad one.", "plain.txt").status_code == 201


def test_an_upload_over_the_limit_is_refused(fake_stack: Running) -> None:
    answer = fake_stack.upload(b"x" * (65 * 2**20), "big.txt")
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


def test_a_wrong_name_does_not_mislead_and_is_noted(fake_stack: Running) -> None:
    view = fake_stack.upload(pdf(), "letter.docx").json()
    assert view["kind"] == "pdf"
    assert any("docx" in note for note in view["notes"])
