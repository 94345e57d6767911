"""What the tagger sees of a token: its shape, endings, the lists that it stands in, and plain words, but never a name.

A word's own letters are a feature only where it is common English or in our own short lists; of all others the tagger
knows their shape, their last letters, and which lists have them.
"""

from __future__ import annotations

import gzip
import unicodedata
from functools import cache
from importlib import resources

from workers.analysis.sensitive.tokens import BEGIN, COLUMN, END, NEW_LINE

# First flag that a word has, in this order, is its class: what it says most surely.
_CLASSES = "hdotbnk"
_OWN_WORDS = frozenset(_CLASSES) - {"k"}


@cache
def gazetteer() -> dict[str, str]:
    """Word in lower case → flags, as ``training/gazetteer.py`` explains them."""
    data = gzip.decompress(
        resources.files("workers.analysis.sensitive").joinpath("gazetteer.txt.gz").read_bytes()
    ).decode()
    return dict(line.split("\t") for line in data.splitlines())


def token_features(key: str) -> tuple[str, ...]:
    """Features of a token's key (see :class:`Tokens`), the same wherever it stands."""
    gap, token = key[0], key[1:]
    if token in (BEGIN, END) or (token.startswith("<") and len(token) > 1):
        return (f"t={token}", f"g={gap}")
    if token.isdecimal():
        return (f"g={gap}", f"d={min(len(token), 7)}", f"gd={gap}{min(len(token), 6)}", "digits")
    if not token[0].isalpha():
        return (f"g={gap}", f"p={token if token.isascii() else unicodedata.category(token[0])}")
    word = unicodedata.normalize("NFC", token)
    lower = word.lower()
    flags = flags_of(lower)
    case = case_of(word)
    found = [f"g={gap}", f"c={case}", f"cf={case}{flags}", f"k={kind(key)[1:]}", f"n={min(len(word), 12)}"]
    found += [f"f={flag}" for flag in flags]
    if not flags:
        found.append(f"unknown={case}")
    if not word.isascii():
        found.append("accents")
        found.append(f"script={unicodedata.name(word[0], '?').partition(' ')[0]}")
    if is_plain(flags):
        found.append(f"w={lower}")
        found.append(f"w={lower}{case}")
    elif len(word) > 4:
        found += [f"e={lower[-3:]}", f"e={lower[-2:]}"]
        if len(word) > 6:
            found.append(f"e={lower[-4:]}")
    return tuple(found)


def is_plain(flags: str) -> bool:
    """Whether a word of these lists may itself be a feature: common English, no given name, or our own lists'."""
    return "x" in flags or ("w" in flags and "g" not in flags) or not _OWN_WORDS.isdisjoint(flags)


def flags_of(lower: str) -> str:
    """The lists that have the word; a plural counts as the name of a people too."""
    lists = gazetteer()
    flags = lists.get(lower, "")
    if not flags and lower.endswith("s") and "n" in lists.get(lower[:-1], ""):
        return "n"
    return flags


def case_of(word: str) -> str:
    """A: one capital; U: capitals; T: a capital first; l: small letters; m: mixed."""
    if len(word) == 1:
        return "A" if word.isupper() else "a"
    if word.islower():
        return "l"
    if word.isupper():
        return "U"
    return "T" if word[0].isupper() and word[1:].islower() else "m"


def kind(key: str) -> str:
    """A token's coarse kind, of which the tagger looks at pairs: line begin, case and class, digits, or the sign."""
    gap = int(key[0])
    line = "n" if gap >= NEW_LINE else "c" if gap == COLUMN else "-"
    token = key[1:]
    if token.isdecimal():
        return f"{line}{min(len(token), 6)}"
    if token[0] == "<" or not token[0].isalpha():
        return f"{line}{token if token.isascii() else '?'}"
    flags = flags_of(unicodedata.normalize("NFC", token).lower())
    return f"{line}{case_of(token)}{_class(flags)}"


def _class(flags: str) -> str:
    for flag in _CLASSES:
        if flag in flags:
            return flag
    common = "w" in flags or "x" in flags
    if "g" in flags or "s" in flags:
        return ("G" if "g" in flags else "Z") if common else "g" if "g" in flags else "s"
    for flag in "cjw":
        if flag in flags:
            return flag
    return "v" if "v" in flags else "-"
