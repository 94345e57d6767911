"""Reads RTF: a small state machine over its bytes that keeps footnotes and accepts tracked changes."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, replace

from workers.documents.assembly import PAGE_BREAK, Draft
from workers.documents.limits import Limits, damaged

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|([^\\{}\r\n]+)|[\r\n]+"
)

# Groups whose content is no text of the document. Groups marked \* are left out unless named in _SHOWN.
_HIDDEN = frozenset({
    "fonttbl", "colortbl", "stylesheet", "info", "pict", "object", "themedata", "colorschememapping", "datastore",
    "latentstyles", "listtable", "listoverridetable", "rsidtbl", "revtbl", "filetbl", "generator", "xmlnstbl",
    "fldinst", "bkmkstart", "bkmkend", "annotation", "atnid", "atnauthor", "atnref", "atndate", "atnicn",
    "template", "private", "pgptbl", "mmathPr", "nonshppict", "sp", "sn", "sv", "tc", "tcn", "xe", "pnseclvl",
    "ftnsep", "ftnsepc", "ftncn", "aftnsep", "aftnsepc", "aftncn", "defchp", "defpap", "wgrffmtfilter", "userprops",
    "docvar",
})  # fmt: skip
_SHOWN = frozenset(("shptxt", "shppict", "shpinst", "footnote", "fldrslt", "ud"))
_ASIDE = frozenset(("footnote", "header", "headerl", "headerr", "headerf", "footer", "footerl", "footerr", "footerf"))
_SIGNS = {
    "par": "\n\n", "sect": "\n\n", "page": PAGE_BREAK, "line": "\n", "tab": "\t", "cell": "\t", "nestcell": "\t",
    "row": "\n\n", "nestrow": "\n\n", "emdash": "—", "endash": "–", "emspace": " ", "enspace": " ", "qmspace": " ",
    "bullet": "•", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”",
}  # fmt: skip
_SYMBOLS = {b"~": "\u00a0", b"_": "-", b"\\": "\\", b"{": "{", b"}": "}", b"\r": "\n\n", b"\n": "\n\n"}
_CHARSETS = {
    77: "mac_roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gbk", 136: "big5", 161: "cp1253", 162: "cp1254",
    163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250",
    254: "cp437", 255: "cp850",
}  # fmt: skip
_MOST_GROUPS = 10_000


@dataclass(frozen=True, slots=True)
class _State:
    """What a group changes and its closing brace brings back."""

    hidden: bool = False
    deleted: bool = False
    skip: int = 1
    font: int | None = None
    table: bool = False
    aside: int | None = None


def read_rtf(data: bytes, limits: Limits) -> Draft:
    """Read one RTF file; page breaks part its pages, foot- and endnotes, headers and footers stand at its end."""
    reader = _Reader(limits)
    reader.read(data.lstrip(b"\xef\xbb\xbf \t\r\n"))
    pages = [_tidy(page) for page in "".join(reader.body).split(PAGE_BREAK)]
    while len(pages) > 1 and not pages[-1]:
        pages.pop()
    asides = dict.fromkeys(text for aside in reader.asides if (text := _tidy("".join(aside).replace(PAGE_BREAK, ""))))
    pages[-1] = "\n\n".join(filter(None, (pages[-1], *asides)))
    limits.check_pages(len(pages))
    limits.check_chars(sum(map(len, pages)))
    notes = ("The document has tracked changes: insertions were read, deletions left out.",) if reader.deletions else ()
    return Draft("rtf", tuple(pages), notes)


def _tidy(text: str) -> str:
    """Join the halves of characters beyond the BMP and collapse runs of blank lines."""
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "")
    return re.sub(r"(?<![ \t])[ \t]*+\n\s*\n\s*", "\n\n", joined).strip()


class _Reader:
    def __init__(self, limits: Limits) -> None:
        self.body: list[str] = []
        self.asides: list[list[str]] = []
        self.deletions = False
        self._limits = limits
        self._chars = 0
        self._state: _State = _State()
        self._stack: list[_State] = []
        self._codepage = "cp1252"
        self._fonts: dict[int, str] = {}
        self._default_font: int | None = None
        self._pending: int = 0
        self._raw = bytearray()
        self._footnotes: int = 0

    def read(self, data: bytes) -> None:
        at = 0
        starred = False
        while match := _TOKEN.match(data, at):
            at = match.end()
            word, number, code, symbol, brace, plain = match.groups()
            if code:
                self._byte(bytes.fromhex(code.decode("ascii")))
                continue
            if plain:
                starred = False
                self._plain(plain)
                continue
            self._flush()
            if brace == b"{":
                self._pending = 0
                starred = False
                if len(self._stack) >= _MOST_GROUPS:
                    raise damaged("The RTF file nests deeper than any document.")
                self._stack.append(self._state)
            elif brace == b"}":
                self._pending = 0
                if not self._stack:
                    break
                self._state = self._stack.pop()
                if not self._stack:
                    return
            elif symbol == b"*":
                starred = True
            elif symbol:
                self._write(_SYMBOLS.get(symbol, ""))
            elif word:
                name = word.decode("ascii")
                value = int(number) if number else None
                if name == "bin":
                    at += max(0, value or 0)
                else:
                    self._word(name, value, starred)
                starred = False
        if self._stack:
            raise damaged("The RTF file is cut off.")

    def _word(self, name: str, value: int | None, starred: bool) -> None:
        state = self._state
        if name == "u" and value is not None:
            self._write(chr(value % 0x10000))
            self._pending = state.skip
        elif name in _SIGNS:
            self._write(_SIGNS[name])
        elif name == "fonttbl":
            self._state = replace(state, hidden=True, table=True)
        elif name in _HIDDEN or (starred and name not in _SHOWN):
            self._state = replace(state, hidden=True)
        elif name in _ASIDE and not state.hidden:
            self.asides.append([])
            self._state = replace(state, aside=len(self.asides) - 1)
            if name == "footnote":
                self._refer(state)
        elif name in ("deleted", "plain"):
            self._state = replace(state, deleted=name == "deleted" and value != 0)
        elif name == "uc":
            self._state = replace(state, skip=max(0, min(value or 0, 16)))
        elif name == "f":
            self._state = replace(state, font=value)
        elif name == "deff":
            self._default_font = value
        elif name == "fcharset" and state.table and state.font is not None and value in _CHARSETS:
            self._fonts[state.font] = _CHARSETS[value]
        elif name in ("ansicpg", "mac", "pc", "pca"):
            self._set_codepage({"mac": "mac_roman", "pc": "cp437", "pca": "cp850"}.get(name, f"cp{value}"))

    def _refer(self, outer: _State) -> None:
        self._footnotes += 1
        mark = f"[{self._footnotes}]"
        self.asides[-1].append(mark + " ")
        target = self.body if outer.aside is None else self.asides[outer.aside]
        target.append(mark)

    def _set_codepage(self, name: str) -> None:
        try:
            self._codepage = codecs.lookup("utf-8" if name == "cp65001" else name).name
        except LookupError:
            self._codepage = "cp1252"

    def _plain(self, plain: bytes) -> None:
        if self._pending:
            used = min(self._pending, len(plain))
            self._pending -= used
            plain = plain[used:]
        if self._raw or not plain.isascii():
            self._raw += plain  # the second byte of an East Asian character may look like a letter
        else:
            self._write(plain.decode("ascii"))

    def _byte(self, byte: bytes) -> None:
        if self._pending:
            self._pending -= 1
        else:
            self._raw += byte

    def _flush(self) -> None:
        if self._raw:
            font = self._state.font if self._state.font is not None else self._default_font
            encoding = self._fonts.get(font, self._codepage) if font is not None else self._codepage
            self._write(self._raw.decode(encoding, "replace"))
            self._raw.clear()

    def _write(self, text: str) -> None:
        state = self._state
        if state.hidden or not text:
            return
        if state.deleted:
            self.deletions = True
            return
        self._chars += len(text)
        self._limits.check_chars(self._chars)
        (self.body if state.aside is None else self.asides[state.aside]).append(text)
