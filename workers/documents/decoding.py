"""Turns the bytes of text files into characters, whatever their encoding; binary content is refused, never guessed."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from charset_normalizer import from_bytes

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Controls that no text holds; tab, line ends, vertical tab, form feed, SUB (the end of DOS files) and ESC may stand.
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x19\x1c-\x1f\x7f\ufffe\uffff]")
_SAMPLE = 64 * 1024
# Bytes 0x80 to 0xFF that stand as letters and signs in Western European text under Windows.
_WESTERN = frozenset(
    "äöüÄÖÜßéèêëàâáãåçñíìîïóòôõøúùûýÿæœÉÈÊËÀÂÁÃÅÇÑÍÌÎÏÓÒÔÕØÚÙÛÝÆŒ§©®™°±²³¹½¼¾×÷¶·•–—‘’‚“”„…«»¿¡€£¥¢ªºˆ˜†‡‰‹›\xa0\xad´¨¸¬µ"
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, the encoding it was read as, and whether that was a guess rather than marked or proven."""

    text: str
    encoding: str
    guessed: bool = False


def decode(data: bytes, declared: str | None = None) -> Decoded | None:
    """Decode a text file; None where the content is not text.

    A byte-order mark wins, then what the format declares (HTML's charset, say), then UTF-8 if the bytes are valid
    UTF-8, UTF-16 and UTF-32 by the pattern of their zero bytes, and at last a guess, which says so.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _strict(data[len(mark) :], encoding)
    if declared and (found := _strict(data, declared)):
        return found
    if b"\0" in data:
        wide = _wide(data[:_SAMPLE])
        return _strict(data, wide) if wide else None
    if found := _strict(data, "utf-8"):
        return found
    return _guess(data)


def guess_note(decoded: Decoded) -> tuple[str, ...]:
    """A note for a person where the encoding was a guess."""
    if not decoded.guessed:
        return ()
    return (f"The text does not say its encoding; it was read as {decoded.encoding}.",)


def _strict(data: bytes, encoding: str) -> Decoded | None:
    try:
        text = data.decode(codecs.lookup(encoding).name)
    except (LookupError, ValueError):  # unknown encoding; UnicodeDecodeError is a ValueError
        return None
    return None if looks_binary(text) else Decoded(text, encoding)


def looks_binary(text: str) -> bool:
    """Whether there are controls that no text has; one in 10,000 characters may be an accident, a NUL never is."""
    controls = len(_CONTROLS.findall(text))
    return "\0" in text or controls > len(text) / 10_000 + 2


def _wide(sample: bytes) -> str | None:
    """UTF-16 or UTF-32 by where the zero bytes stand: Western text has them all at the same places."""
    quarters = [sample[offset::4].count(0) / max(1, len(sample[offset::4])) for offset in range(4)]
    if len(sample) % 4 == 0:
        if min(quarters[1:]) > 0.9 and quarters[0] < 0.1:
            return "utf-32-le"
        if min(quarters[:3]) > 0.9 and quarters[3] < 0.1:
            return "utf-32-be"
    even, odd = (quarters[0] + quarters[2]) / 2, (quarters[1] + quarters[3]) / 2
    if odd > 0.3 and even < 0.05:
        return "utf-16-le"
    if even > 0.3 and odd < 0.05:
        return "utf-16-be"
    return None


def _guess(data: bytes) -> Decoded | None:
    """Guess an 8-bit or East Asian encoding; Western European first, since statistics fail on short Western text."""
    western = _strict(data, "cp1252")
    if western and all(sign in _WESTERN or sign < "\x80" for sign in set(western.text)):
        high = sum(map(western.text.count, (sign for sign in set(western.text) if sign >= "\x80")))
        # Cyrillic or Chinese bytes are mostly high; Western text is mostly ASCII.
        if high * 4 < len(data):
            return Decoded(western.text, "cp1252", guessed=True)
    best = from_bytes(data).best()
    if best is not None and (found := _strict(data, best.encoding)):
        return Decoded(found.text, best.encoding, guessed=True)
    # Windows-1252 leaves five bytes undefined, Latin-1 none.
    fallback = western or _strict(data, "latin-1")
    return Decoded(fallback.text, fallback.encoding, guessed=True) if fallback else None
