"""Reads HTML: visible text only, block elements part paragraphs, table cells are parted by tabs."""

from __future__ import annotations

import re

from workers.documents.assembly import Draft
from workers.documents.decoding import decode, guess_note
from workers.documents.limits import Limits, damaged
from workers.documents.xmltree import Element, parse_html, walk

_SILENT = frozenset(("script", "style", "template", "noscript", "title", "head", "object", "svg", "math", "select"))
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "legend", "li",
    "main", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
    "caption",
})  # fmt: skip
_CELLS = frozenset(("td", "th"))
_SPACE = re.compile(r"[ \t\n\r\f\v]+")
_CHARSET = re.compile(
    rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)|<\?xml[^>]+encoding\s*=\s*["']([\w.:-]+)""", re.IGNORECASE
)


def read_html(data: bytes, limits: Limits, declared: str | None = None) -> Draft:
    """Read one HTML file; ``declared`` is the encoding that a mail part names for it."""
    decoded = decode(data, declared or declared_charset(data))
    if decoded is None:
        raise damaged("The HTML holds bytes that are not text.")
    text = html_to_text(decoded.text)
    limits.check_chars(len(text))
    return Draft("html", (text,), guess_note(decoded))


def declared_charset(data: bytes) -> str | None:
    """The encoding that the HTML names itself; browsers read ISO-8859-1 as Windows-1252, and so do we."""
    found = _CHARSET.search(data[:4096])
    if found is None:
        return None
    name = (found.group(1) or found.group(2)).decode("ascii").lower()
    # A meta element that can be read byte by byte cannot stand in UTF-16: the label is wrong then.
    if name.startswith(("utf-16", "utf-32")):
        return None
    return "cp1252" if name in ("iso-8859-1", "iso8859-1", "latin1", "latin-1", "us-ascii", "ascii") else name


def html_to_text(source: str) -> str:
    """The visible text: paragraphs parted by blank lines, ``<br>`` a line break."""
    root = parse_html(source)
    if root is None:
        return ""
    writer = _Writer()
    silent = 0
    preformatted = 0
    for event, element in walk(root):
        tag = element.tag if isinstance(element.tag, str) else ""
        if event == "start":
            silent += tag in _SILENT
            preformatted += tag == "pre"
            if not silent:
                _open(writer, tag, element, bool(preformatted))
        else:
            silent -= tag in _SILENT
            preformatted -= tag == "pre"
            if not silent:
                _close(writer, tag, element, bool(preformatted))
    return writer.text()


def _open(writer: _Writer, tag: str, element: Element, preformatted: bool) -> None:
    if tag in _BLOCKS:
        writer.part()
    elif tag == "br":
        writer.write("\n")
    writer.flow(element.text, preformatted)


def _close(writer: _Writer, tag: str, element: Element, preformatted: bool) -> None:
    if tag in _BLOCKS:
        writer.part()
    elif tag in _CELLS:
        writer.write("\t")
    writer.flow(element.tail, preformatted)


class _Writer:
    """Collects inline text into blocks."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._open: list[str] = []

    def write(self, text: str) -> None:
        self._open.append(text)

    def flow(self, text: str | None, preformatted: bool) -> None:
        if text:
            self._open.append(text if preformatted else _SPACE.sub(" ", text))

    def part(self) -> None:
        inline = re.sub("  +", " ", "".join(self._open))
        lines = [line.strip(" \t") for line in inline.split("\n")]
        block = "\n".join(re.sub(r" *\t[ \t]*", "\t", line) for line in lines).strip("\n ")
        if block:
            self._blocks.append(block)
        self._open.clear()

    def text(self) -> str:
        self.part()
        return "\n\n".join(self._blocks)
