"""Finds the paragraphs of a PDF page from where its lines stand, and mends what PDF production did to its words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from workers.documents.pdfium import Box, Line

# See HYPHEN_MARKS in pdfium.py.
# What stands behind the broken word's second half is kept with it; the space after it takes the lost line end.
_BROKEN = re.compile(r"([^\W\d_]+)[\ufffe\x02]\n?([^\W\d_]+)([^\s\ufffe\x02]*)( (?=\S))?")
_HYPHENS = re.compile("[\ufffe\x02\u00ad]")
_SPACES = re.compile("[\u00a0\u2007\u202f]")
_DROPPED = re.compile("[\x00\x01\x03-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\uffff]")
_WORD = re.compile(r"[^\W\d_]+")

_NUMBERED = re.compile(
    r"\s*(?:\(?(?:[a-zA-Z]|[ivxlcIVXLC]{1,5}|\d{1,3})[.)]|\d{1,3}(?:\.\d{1,3})+\.?|(?:ARTICLE|Article|SECTION|Section|"
    r"EXHIBIT|Exhibit|SCHEDULE|Schedule|ANNEX|Annex)\s+[\dIVXLCA-Z]|§)\s*\S|\s*[•▪◦●\u2013\u2014\-*]\s+\w"
)
_CLOSED = re.compile(r"""(?:[.;:!?]["'”’)\]]*|\b(?:and|or)|,)\s*$""")
_STOPPED = re.compile(r"""[.;:!?]["'”’)\]]*\s*$""")
_OPENS = re.compile(r"""\s*["'“‘(\[]?[A-Z0-9À-Þ]""")


class Hyphens:
    """Decides for each word broken at a line's end whether its hyphen is its own (non-exclusive) or the line's.

    The document itself is the dictionary: the hyphen goes where the joined word stands elsewhere in it, unbroken,
    and more often than with a hyphen. In doubt it stays: a hyphen too many hurts search less than a lost one.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._words: Counter[str] = Counter()
        self._compounds: Counter[str] = Counter()
        for text in texts:
            whole = _BROKEN.sub(" ", text)
            self._words.update(word.lower() for word in _WORD.findall(whole))
            self._compounds.update(word.lower() for word in re.findall(r"[^\W\d_]+-[^\W\d_]+", whole))

    def mend(self, text: str) -> str:
        """``text`` with each broken word joined or hyphenated."""
        return _HYPHENS.sub("-", _BROKEN.sub(self._join, text))

    def _join(self, match: re.Match[str]) -> str:
        head, tail, rest, space = match.groups()
        joined = (head + tail).lower()
        one_word = tail.islower() and self._words[joined] > self._compounds[f"{head}-{tail}".lower()]
        hyphen, line_end = ("" if one_word else "-"), ("\n" if space else "")
        return f"{head}{hyphen}{tail}{rest}{line_end}"


def clean(text: str) -> str:
    """Plain spaces for fixed ones, and no control characters; hyphen marks stay for :class:`Hyphens`."""
    return _DROPPED.sub("", _SPACES.sub(" ", text)).rstrip()


def join_lines(lines: Sequence[Line]) -> str:
    """The text of a page: a line break between lines, a blank line between paragraphs."""
    texts = [clean(line.text) for line in lines]
    kept = [index for index, text in enumerate(texts) if text.strip()]
    if not kept:
        return ""
    measures = _Measures([lines[index] for index in kept])
    parts = [texts[kept[0]].lstrip()]
    for before, here in pairwise(kept):
        # Lines without a visible character stood between: PDFium's way to show an empty one.
        new = here - before > 1 or measures.parts(lines[before], lines[here])
        parts.append("\n\n" if new else "\n")
        parts.append(texts[here].lstrip())
    return "".join(parts)


class _Measures:
    """Margins and line pitch of one page, and the rules that read paragraphs from them."""

    def __init__(self, lines: Sequence[Line]) -> None:
        lefts = sorted(line.start[0] for line in lines if line.start)
        rights = sorted(line.end[2] for line in lines if line.end)
        self._left = lefts[len(lefts) // 10] if lefts else 0.0
        self._right = rights[-1 - len(rights) // 20] if rights else 0.0
        pitches = sorted(
            pitch
            for above, below in pairwise(lines)
            if above.end and below.start and (pitch := above.end[1] - below.start[1]) > 0.6 * _height(above.end)
        )
        # Most steps of a page are from line to line; a low one among them is surely no step between paragraphs.
        self._pitch = pitches[len(pitches) // 4] if pitches else 0.0

    def parts(self, above: Line, below: Line) -> bool:
        """Whether a paragraph ends between these lines."""
        closed = bool(_CLOSED.search(above.text))
        stopped = bool(_STOPPED.search(above.text))
        opens = bool(_OPENS.match(below.text))
        numbered = bool(_NUMBERED.match(below.text))
        end, start = above.end, below.start
        if end is None or start is None:
            return numbered and closed
        width = max(1.0, self._right - self._left)
        short = end[2] < self._right - 0.15 * width
        pitch = (end[1] - start[1]) / (self._pitch or _height(end))
        if pitch < -2:  # back up: another column begins
            return opens
        if numbered and (closed or short):
            return True
        # Lines of double spacing stand twice as far apart as those of a quotation on the same page.
        if pitch > 2.6 or (pitch > 1.8 and short):
            return True
        if pitch > 1.3 and opens and (closed or short):
            return True
        if short and opens and (stopped or end[2] < self._left + 0.6 * width):
            return True
        indented = above.start is not None and start[0] > max(above.start[0], self._left) + 8
        return indented and opens and stopped and not _NUMBERED.match(above.text)


def _height(box: Box) -> float:
    return max(1.0, box[3] - box[1])
