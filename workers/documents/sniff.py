"""Finds a file's type from its content, never from its name; refuses by name what is recognised but not read."""

from __future__ import annotations

import io
import re
import zipfile

from services.errors import DocumentError, UnsupportedMedia
from workers.documents.archive import BROKEN, METHODS
from workers.documents.decoding import decode
from workers.documents.jsonl import is_bank
from workers.documents.limits import damaged

HEAD = 4096
# ISO 32000 lets the header stand within the first 1,024 bytes; some mail gateways put more before it.
_PDF_WITHIN = 4096

_AS_DOCX = 'Open it and save it as ".docx" or PDF.'
_AS_PDF = "Print or export it to PDF."
_SCAN = "Make a PDF with a text layer of it (OCR)."
_UNPACK = "Unpack it and send the documents in it."
_NOT_A_DOCUMENT = "Send the document itself."

_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\xffWPC", "a WordPerfect document", _AS_DOCX),
    (b"\x89PNG\r\n\x1a\n", "an image (PNG)", _SCAN),
    (b"\xff\xd8\xff", "an image (JPEG)", _SCAN),
    (b"GIF87a", "an image (GIF)", _SCAN),
    (b"GIF89a", "an image (GIF)", _SCAN),
    (b"II*\0", "an image (TIFF)", _SCAN),
    (b"MM\0*", "an image (TIFF)", _SCAN),
    (b"\0\0\x01\0", "an icon", _NOT_A_DOCUMENT),
    (b"%!PS", "a PostScript file", _AS_PDF),
    (b"AT&TFORM", "a DjVu document", _AS_PDF),
    (b"\x7fELF", "a program", _NOT_A_DOCUMENT),
    (b"\xcf\xfa\xed\xfe", "a program", _NOT_A_DOCUMENT),
    (b"\xca\xfe\xba\xbe", "a program", _NOT_A_DOCUMENT),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (b"MSCF", "a cabinet archive", _UNPACK),
    (b"\x78\x9f\x3e\x22", "an Outlook attachment bundle (winmail.dat)", "Ask for the attachments as separate files."),
    (b"!BDN", "an Outlook mailbox (.pst)", 'Save its messages as ".eml".'),
    (b"ID3", "a sound file", _NOT_A_DOCUMENT),
    (b"OggS", "a sound file", _NOT_A_DOCUMENT),
    (b"fLaC", "a sound file", _NOT_A_DOCUMENT),
    (b"SQLite format 3\0", "a database", _NOT_A_DOCUMENT),
    (b"GGUF", "a language model (GGUF)", "Add it with `casemill models add`."),
)
_RIFF = {b"WEBP": ("an image (WebP)", _SCAN), b"WAVE": ("a sound file", _NOT_A_DOCUMENT)}
_IMAGE_BRANDS = (b"heic", b"heix", b"heim", b"mif1", b"avif")

# Compound files carry the names of their streams in UTF-16.
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_OLE_STREAMS = (
    ("WordDocument", "a Word 97-2003 document (.doc)", _AS_DOCX),
    ("Workbook", "an Excel 97-2003 workbook (.xls)", _AS_PDF),
    ("PowerPoint Document", "a PowerPoint 97-2003 presentation (.ppt)", _AS_PDF),
    ("__substg1.0_", "an Outlook message (.msg)", 'Save it as ".eml" or PDF.'),
)
_ZIP_MEMBERS = (
    ("xl/", "an Excel workbook (.xlsx)", _AS_PDF),
    ("ppt/", "a PowerPoint presentation (.pptx)", _AS_PDF),
    ("visio/", "a Visio drawing (.vsdx)", _AS_PDF),
    ("Index/Document.iwa", "an Apple Pages, Numbers or Keynote document", _AS_PDF),
    ("FixedDocSeq.fdseq", "an XPS document", _AS_PDF),
    ("META-INF/MANIFEST.MF", "a program (.jar)", _NOT_A_DOCUMENT),
)
_ZIP_MIMETYPES = (
    (b"application/vnd.oasis.opendocument.text", "an OpenDocument text (.odt)", _AS_DOCX),
    (b"application/vnd.oasis.opendocument", "an OpenDocument file", _AS_PDF),
    (b"application/epub+zip", "an e-book (EPUB)", _AS_PDF),
)

_FIELD = re.compile(r"[!-9;-~]+:")
_MAIL_FIELDS = frozenset(("message-id", "mime-version", "received", "return-path", "content-type", "x-mailer"))
_MAIL_DATE = re.compile(r"(?:\w{3}, )?\d{1,2} \w{3} \d{2,4} \d{1,2}:\d{2}")
_HTML = re.compile(r"<!doctype\s+html|<html[\s>]", re.IGNORECASE)
_HTML_START = re.compile(
    r"(?:\s++|<!--(?:(?!-->).)*+-->|<\?xml[^>]*+>)*+<(?:head|body|div|p|table|title|meta|style|script|span|h[1-6]|"
    r"center|font|br|ul|ol|a|b|i|pre|section|article|main|form|blockquote|dl)[\s/>]",
    re.IGNORECASE | re.DOTALL,
)


def sniff(data: bytes) -> str:
    """The type of the content: ``pdf``, ``docx``, ``eml``, ``rtf``, ``html``, ``jsonl`` or ``txt``.

    Raises ``UnsupportedMedia``: ``document_type_unsupported`` for known types that are not read, else
    ``document_type_unknown``; ``DocumentError``: ``document_empty``, ``document_encrypted``, ``document_damaged``.
    """
    if not data.strip(b" \t\r\n\0"):
        raise DocumentError("The file is empty.", code="document_empty")
    if data.startswith(b"%PDF-"):
        return "pdf"
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _sniff_zip(data)
    if data.startswith(_OLE):
        raise _compound(data)
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{\\rtf"):
        return "rtf"
    if _is_pdf_behind_other_bytes(data):
        return "pdf"
    _refuse_known(data)
    head = _decoded_head(data)
    if head is not None:
        return _sniff_text(head)
    raise UnsupportedMedia(
        "The file is neither text nor of a type that Casemill knows. "
        "It reads PDF, DOCX, EML, RTF, HTML and plain text: send it as one of these.",
        code="document_type_unknown",
    )


def _decoded_head(data: bytes) -> str | None:
    """The start of a text file, or None where the whole is not text (the guess of its encoding may come later)."""
    decoded = decode(data)
    if decoded is not None:
        return decoded.text[:HEAD]
    # A message may carry binary parts as they are (8BITMIME and older habits): its header is plain all the same.
    head = re.split(rb"\r?\n\r?\n", data[: 4 * HEAD], maxsplit=1)[0]
    text = head.decode("latin-1")
    return text if b"\0" not in head and _is_mail(text) else None


def _sniff_text(head: str) -> str:
    if _is_mail(head):
        return "eml"
    start = head.lstrip("\ufeff \t\r\n")
    if start.startswith("<") and (_HTML.search(head) or _HTML_START.match(start)):
        return "html"
    if start.startswith("<?xml") and 'progid="Word.Document"' in head:
        raise _unsupported("a Word 2003 XML document", _AS_DOCX)
    if start.startswith("BEGIN:VCALENDAR"):
        raise _unsupported("a calendar entry", _AS_PDF)
    return "jsonl" if is_bank(head) else "txt"


def _is_mail(head: str) -> bool:
    """Whether the text begins with a mail header: fields only, one of them written by mail programs alone.

    A memo that begins with From, To and Subject is not mail and keeps its offsets as a text.
    """
    names: set[str] = set()
    lines = head.lstrip("\ufeff").splitlines()
    if lines and lines[0].startswith(("From ", ">From ")):  # mbox's separator line
        lines = lines[1:]
    for line in lines:
        if not line:
            break
        if line[0] in " \t" and names:
            continue
        if not _FIELD.match(line):
            return False
        name, _, value = line.partition(":")
        names.add(name.lower())
        if name.lower() == "date" and _MAIL_DATE.match(value.strip()):
            names.add("message-id")
    return len(names) > 1 and not names.isdisjoint(_MAIL_FIELDS)


def _is_pdf_behind_other_bytes(data: bytes) -> bool:
    found = re.search(rb"%PDF-[12]\.\d", data[:_PDF_WITHIN])
    if found is None or re.search(rb"\d\s{1,9}\d{1,9}\s{1,9}obj\b", data) is None:
        return False
    # A message whose attachment is a raw PDF is a message; a PDF saved with its HTTP header is a PDF.
    before = data[: found.start()].decode("latin-1")
    return before.startswith("HTTP/") or not _is_mail(before)


def _refuse_known(data: bytes) -> None:
    for magic, name, advice in _MAGIC:
        if data.startswith(magic):
            raise _unsupported(name, advice)
    if data.startswith(b"RIFF") and data[8:12] in _RIFF:
        raise _unsupported(*_RIFF[data[8:12]])
    if data[4:8] == b"ftyp":
        if data[8:12] in _IMAGE_BRANDS:
            raise _unsupported("an image (HEIC or AVIF)", _SCAN)
        raise _unsupported("a video or sound file", _NOT_A_DOCUMENT)
    if data.startswith(b"BM") and b"\0" in data[:16]:
        raise _unsupported("an image (BMP)", _SCAN)
    if data.startswith(b"MZ") and b"\0" in data[:64]:
        raise _unsupported("a program", _NOT_A_DOCUMENT)


def _compound(data: bytes) -> UnsupportedMedia | DocumentError:
    if "EncryptedPackage".encode("utf-16-le") in data:
        return DocumentError(
            "The document is encrypted. Open it with its password, remove the password and send it again.",
            code="document_encrypted",
        )
    for stream, name, advice in _OLE_STREAMS:
        if stream.encode("utf-16-le") in data:
            return _unsupported(name, advice)
    return _unsupported("a file of an older Office program", _AS_DOCX)


def _sniff_zip(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            mimetype = archive.getinfo("mimetype") if "mimetype" in names else None
            if mimetype and mimetype.file_size < 200 and mimetype.compress_type in METHODS:
                with archive.open(mimetype) as member:
                    _refuse_mimetype(member.read(200))
    except BROKEN:
        # The directory stands at the end of the file, so a file that was cut off has none.
        if b"word/" in data or b"[Content_Types].xml" in data[:HEAD]:
            raise damaged("The Word document is cut off or broken.") from None
        raise damaged("The archive is cut off or broken.") from None
    if any(name.startswith("word/") for name in names):
        return "docx"
    for start, name, advice in _ZIP_MEMBERS:
        if any(member.startswith(start) for member in names):
            raise _unsupported(name, advice)
    raise _unsupported("a ZIP archive", _UNPACK)


def _refuse_mimetype(mimetype: bytes) -> None:
    for start, name, advice in _ZIP_MIMETYPES:
        if mimetype.startswith(start):
            raise _unsupported(name, advice)


def _unsupported(name: str, advice: str) -> UnsupportedMedia:
    return UnsupportedMedia(
        f"The file is {name}, which Casemill does not read. {advice}", code="document_type_unsupported"
    )
