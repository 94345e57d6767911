"""Reads Word documents (OOXML) from their XML parts: body, tables, text boxes, headers, footers, foot- and endnotes.

Tracked changes are read as accepted: insertions stay, deletions go. Automatic paragraph numbers are not in the file's
text and are not computed; a note says so.
"""

from __future__ import annotations

import re

from workers.documents.archive import Package
from workers.documents.assembly import Draft
from workers.documents.limits import Limits, damaged
from workers.documents.xmltree import Element, parse_xml, walk

_MAIN = re.compile(
    rb"""<(?:\w+:)?Override[^>]*PartName\s*=\s*["']/?([^"']+)["'][^>]*ContentType\s*=\s*["'][^"']*"""
    rb"""(?:wordprocessingml\.(?:document|template)|ms-word\.(?:document|template)\.macroEnabled(?:Template)?)\.main\+xml"""
)
# Deleted and moved-away text, field codes, drawings repeated for old programs, and formatting.
_SILENT = frozenset({
    "del", "moveFrom", "delText", "instrText", "delInstrText", "Fallback", "pPr", "rPr", "tblPr", "tblGrid", "trPr",
    "tcPr", "sectPr", "sdtPr", "sdtEndPr",
})  # fmt: skip
_SIGNS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
# The box and tick signs of Wingdings, which forms are filled in with.
_SYMBOLS = {"F0A8": "☐", "F06F": "☐", "F0FE": "☒", "F078": "☒", "F0FD": "☒", "F0FC": "✓", "F0B7": "•", "F0A7": "▪"}
_NOTE_KINDS = {"footnoteReference": "footnote", "endnoteReference": "endnote"}


def read_docx(data: bytes, limits: Limits) -> Draft:
    """Read one Word document; it is one page, since Word makes pages only when it shows the document."""
    package = Package(data, limits)
    story = _Story(limits)
    main = story.blocks(parse_xml(package.read(_main_part(package)), "The document's main part"))
    headers = _unique(story, package, "header")
    footers = _unique(story, package, "footer")
    asides = _asides(story, package, "footnote") + _asides(story, package, "endnote")
    text = "\n\n".join([*headers, *main, *asides, *footers])
    limits.check_chars(len(text))
    return Draft("docx", (text,), tuple(_notes(story, package)))


def _main_part(package: Package) -> str:
    if "word/document.xml" in package.names:
        return "word/document.xml"
    if "[Content_Types].xml" in package.names:
        found = _MAIN.search(package.read("[Content_Types].xml"))
        if found and (name := found.group(1).decode("utf-8", "replace")) in package.names:
            return name
    raise damaged("The Word document has no main part.")


def _unique(story: _Story, package: Package, kind: str) -> list[str]:
    """The headers or footers, each text once, though every section may repeat it."""
    names = sorted(name for name in package.names if re.fullmatch(rf"word/{kind}\d*\.xml", name))
    found: dict[str, None] = {}
    for name in names:
        found["\n\n".join(story.blocks(parse_xml(package.read(name), f"The part {name}")))] = None
    return [text for text in found if text]


def _asides(story: _Story, package: Package, kind: str) -> list[str]:
    """Foot- or endnotes behind the number that stands in the body, in the order of the file."""
    name = f"word/{kind}s.xml"
    if name not in package.names:
        return []
    found: list[str] = []
    for element in parse_xml(package.read(name), f"The part {name}"):
        identity = _attribute(element, "id")
        if _local(element) == kind and _attribute(element, "type") in (None, "normal"):
            blocks = story.blocks(element)
            number = story.numbers.get((kind, identity or ""))
            if blocks:
                found.append("\n\n".join(blocks) if number is None else f"[{number}] " + "\n\n".join(blocks))
    return found


def _notes(story: _Story, package: Package) -> list[str]:
    notes: list[str] = []
    if story.deletions:
        notes.append("The document has tracked changes: insertions were read, deletions left out.")
    if story.numbered:
        notes.append("The document numbers paragraphs automatically; these numbers are not part of the text.")
    if "word/comments.xml" in package.names:
        comments = sum(
            _local(element) == "comment" for element in parse_xml(package.read("word/comments.xml"), "The comments")
        )
        if comments:
            notes.append(f"The document has {comments} comments, which were not read.")
    embedded = sum(name.startswith("word/embeddings/") for name in package.names)
    if embedded:
        notes.append(f"The document has {embedded} embedded files, which were not read.")
    return notes


class _Story:
    """Reads parts into blocks of text; remembers what notes are about."""

    def __init__(self, limits: Limits) -> None:
        self.deletions = False
        self.numbered = False
        self.numbers: dict[tuple[str, str], int] = {}
        """What foot- and endnotes are referred to by, by kind and identity."""
        self._limits = limits
        self._chars = 0

    def blocks(self, root: Element) -> list[str]:
        """The paragraphs and table rows below ``root``, blank ones left out."""
        sinks: list[list[str]] = [[]]
        rows: list[list[list[str]]] = []
        paragraphs: list[list[str]] = []
        silent = 0
        for event, element in walk(root):
            tag = _local(element)
            if tag in _SILENT:
                silent += 1 if event == "start" else -1
                self.deletions |= tag == "delText"
            elif tag == "numPr":
                self.numbered = True
            elif silent:
                continue
            elif event == "start":
                self._start(tag, element, sinks, rows, paragraphs)
            else:
                self._end(tag, sinks, rows, paragraphs)
        return sinks[0]

    def _start(
        self,
        tag: str,
        element: Element,
        sinks: list[list[str]],
        rows: list[list[list[str]]],
        paragraphs: list[list[str]],
    ) -> None:
        if tag == "p":
            paragraphs.append([])
        elif tag == "tr":
            rows.append([])
        elif tag == "tc":
            sinks.append([])
        elif paragraphs:
            paragraphs[-1].append(self._sign(tag, element))

    def _sign(self, tag: str, element: Element) -> str:
        if tag == "t":
            return element.text or ""
        if tag == "sym":
            return _SYMBOLS.get((_attribute(element, "char") or "").upper(), "\ufffd")
        if kind := _NOTE_KINDS.get(tag):
            number = self.numbers.setdefault((kind, _attribute(element, "id") or ""), len(self.numbers) + 1)
            return f"[{number}]"
        return _SIGNS.get(tag, "")

    def _end(self, tag: str, sinks: list[list[str]], rows: list[list[list[str]]], paragraphs: list[list[str]]) -> None:
        if tag == "p" and paragraphs:
            if text := "".join(paragraphs.pop()).strip():
                self._chars += len(text)
                self._limits.check_chars(self._chars)
                sinks[-1].append(text)
        elif tag == "tc" and len(sinks) > 1:
            cell = sinks.pop()
            if rows:
                rows[-1].append(cell)
            else:
                sinks[-1].extend(cell)
        elif tag == "tr" and rows:
            row = rows.pop()
            # A row of short cells is one line; tables that only lay out whole paragraphs give these.
            if all(len(cell) < 2 for cell in row):
                line = "\t".join(cell[0] if cell else "" for cell in row).strip()
                sinks[-1].extend([line] if line else [])
            else:
                sinks[-1].extend(text for cell in row for text in cell)


def _local(element: Element) -> str:
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _attribute(element: Element, name: str) -> str | None:
    """An attribute of either Word namespace, that of transitional or that of strict files."""
    for space in (
        "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "http://purl.oclc.org/ooxml/wordprocessingml/main",
    ):
        if (value := element.get(f"{{{space}}}{name}")) is not None:
            return value
    return None
