"""Writes a text's typographic variants as one form, a character for a character, so that offsets stay.

Every blank becomes a blank, every dash a hyphen, every decimal digit an ASCII digit, full-width letters plain ones.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

_DASHES = "‐‑‒–—―−﹘﹣－"


def fold(text: str) -> str:
    """``text`` in its plain form; equal length. ASCII comes back as it is."""
    return text if text.isascii() else text.translate(_table())


@cache
def _table() -> dict[int, str]:
    table: dict[int, str] = {}
    for code in range(0x80, sys.maxunicode + 1):
        char = chr(code)
        if char.isspace():
            plain = "\n" if char in "\x85\u2028\u2029" else " "
        elif char in _DASHES:
            plain = "-"
        elif char.isdecimal():
            plain = str(unicodedata.decimal(char))
        elif 0xFF01 <= code <= 0xFF5E:
            plain = chr(code - 0xFEE0)
        elif char in "‘’ʼ":
            plain = "'"
        else:
            continue
        table[code] = plain
    return table
