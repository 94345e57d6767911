"""The one typed door to lxml: parses XML without entities or network, and HTML as browsers forgive it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any, Protocol

from workers.documents.limits import damaged

_etree: Any = importlib.import_module("lxml.etree")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")


class Element(Protocol):
    """What the readers use of an lxml element. ``tag`` is no string for comments and processing instructions."""

    tag: object
    text: str | None
    tail: str | None

    def get(self, key: str, default: str | None = None) -> str | None:
        """The value of an attribute."""
        ...

    def iter(self, *tags: str) -> Iterator[Element]:
        """The element and all below it, in document order."""
        ...

    def __iter__(self) -> Iterator[Element]:
        """The children."""
        ...


def parse_xml(data: bytes, what: str) -> Element:
    """The root of an XML part.

    A document type definition, which may define entities that expand without end, is refused: no Office file has one.
    Raises ``document_damaged``; ``what`` names the part.
    """
    if b"<!DOCTYPE" in data or "<!DOCTYPE".encode("utf-16-le") in data or "<!DOCTYPE".encode("utf-16-be") in data:
        raise damaged(f"{what} defines XML entities, which no Word document does.")
    parser = _etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True)
    try:
        return _etree.fromstring(data, parser)
    except _etree.XMLSyntaxError as error:
        _check(parser)
        raise damaged(f"{what} is not valid XML.") from error


def parse_html(text: str) -> Element | None:
    """The root of an HTML text, or None where it holds no element; HTML's parser expands no declared entities.

    Raises ``document_damaged`` where it nests too deep to be read whole.
    """
    # A declaration of another encoding would contradict the characters that are already decoded.
    source = _DECLARATION.sub("", text).replace("\0", "").encode("utf-8", "replace")
    # huge_tree: without it libxml2 stops at 256 levels and at long texts. With it, it stops at 2,048 levels.
    parser = _etree.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        root = _etree.fromstring(source, parser)
    except _etree.XMLSyntaxError:
        root = None
    if _check(parser):
        # What follows was not parsed: half a text must not pass for the whole.
        raise damaged("The HTML is broken, or nests deeper than any browser shows.")
    return root


def _check(parser: Any) -> bool:
    """Whether the parser gave up, which lxml does not always raise. Raises ``MemoryError`` where that was why."""
    fatal = [entry for entry in parser.error_log if entry.level_name == "FATAL"]
    if any(entry.type_name == "ERR_NO_MEMORY" for entry in fatal):
        raise MemoryError
    return bool(fatal)


def walk(root: Element) -> Iterator[tuple[str, Element]]:
    """Each element twice, as ``start`` and ``end``, without recursion, so that no nesting is too deep."""
    return _etree.iterwalk(root, events=("start", "end"))
