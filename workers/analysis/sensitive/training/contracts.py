"""Sentences of real contracts whose labels are certain without a labeller.

From the developer part of CUAD (The Atticus Project, CC BY 4.0). A sentence is taken where each capitalised word is
common English, a term that the contract defines, or part of a party's name as the annotators marked it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from workers.analysis.sensitive.defined import defined_terms
from workers.analysis.sensitive.features import flags_of
from workers.analysis.sensitive.training.sentences import Sentence

_BREAK = re.compile(r"\n\s*\n|(?<=[.;])\s+(?=[A-Z(\"“])")
_WORD = re.compile(r"[^\W\d_]+")
_FORM = re.compile(
    r"\b(?:Inc|LLC|L\.L\.C|Ltd|Limited|Corp|Corporation|GmbH|PLC|L\.P|LLP|N\.V|B\.V|S\.A|AG|Co)\b", re.IGNORECASE
)
_FIRM = re.compile(_FORM.pattern + r"\.?$", re.IGNORECASE)
_NAMING = set("hnk")


def contract_sentences(cuad: Path, count: int, seed: int) -> list[Sentence]:
    """``count`` sentences, the same for the same seed, from every second contract; the others are for looking at."""
    rows = [json.loads(line) for line in (cuad / "labels.jsonl").read_text("utf-8").splitlines()]
    found: list[Sentence] = []
    for row in sorted(rows, key=lambda row: row["id"])[::2]:
        text = (cuad / "texts" / f"{row['id']}.txt").read_bytes().decode()
        spans = [text[s["start"] : s["end"]] for s in row["spans"] if s["category"] == "Parties"]
        found += _certain(text, {name for name in spans if _FIRM.search(name) and len(name) < 80})
    random.Random(seed).shuffle(found)  # noqa: S311 (repeatable, no secret)
    return found[:count]


def _certain(text: str, parties: set[str]) -> Iterator[Sentence]:
    own = {word for term in defined_terms(text) for word in _WORD.findall(term)}
    names = re.compile("|".join(map(re.escape, sorted(parties, key=len, reverse=True))) or r"\Z(?<!\Z)")
    for part in _BREAK.split(text):
        if not 60 <= len(part) <= 500:
            continue
        rest = names.sub(lambda match: " " * len(match[0]), part)
        if not _FORM.search(rest) and all(_explained(word, own) for word in _WORD.findall(rest)):
            yield Sentence(part, tuple(("ORGANIZATION", *match.span()) for match in names.finditer(part) if match[0]))


def _explained(word: str, own: set[str]) -> bool:
    lower = word.lower()
    flags = set(flags_of(lower))
    if lower == word or len(word) == 1 or lower in own or "x" in flags:
        return True
    return bool(flags & set("wv")) and not flags & ({"g"} | _NAMING) and not ("s" in flags and "w" not in flags)
