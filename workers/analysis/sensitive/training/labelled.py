"""The labelled sentences of the shared data, and how spans become labels of tokens and are counted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.analysis.sensitive.folding import fold
from workers.analysis.sensitive.structured import structured
from workers.analysis.sensitive.tagger import TAGGED
from workers.analysis.sensitive.tokens import Tokens, tokenize

Span = tuple[str, int, int]
"""Type, start and end."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A sentence with its spans; samples of one template are alike."""

    text: str
    spans: tuple[Span, ...]
    template: int


def load(path: Path) -> list[Sample]:
    """The samples of a JSONL file of the shared data."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [
        Sample(row["text"], tuple((s["type"], s["start"], s["end"]) for s in row["spans"]), row["template"])
        for row in rows
    ]


def labelled(text: str, spans: Iterable[Span]) -> tuple[Tokens, list[str]]:
    """The tokens of ``text``, as the finder makes them, and the label of each with BEGIN and END."""
    plain = fold(text)
    tokens = tokenize(plain, structured(plain))
    labels = ["O"] * len(tokens.keys)
    for name, start, end in spans:
        if name not in TAGGED:
            continue
        inside = [n for n, (a, b) in enumerate(zip(tokens.starts, tokens.ends, strict=True)) if a < end and b > start]
        for order, number in enumerate(inside):
            if not tokens.keys[number + 1].endswith(">"):
                labels[number + 1] = f"{'I' if order else 'B'}-{name}"
    return tokens, labels


def folds(samples: Sequence[Sample], count: int) -> list[int]:
    """The fold of each sample, by its template, so that no template stands in two."""
    order = {template: number % count for number, template in enumerate(sorted({s.template for s in samples}))}
    return [order[sample.template] for sample in samples]
