"""The developer part of CUAD as sentences with labels and what the scan found."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.playbooks import default_playbook
from services.texts import DocumentText
from workers.analysis.clause_heads.weights import Floats
from workers.analysis.scan import scan
from workers.analysis.sentences import find_sentences, sentence_at

UNIVERSAL = ("document_name", "parties", "agreement_date", "effective_date", "expiration_date")
"""In nearly every contract: labelled with names and dates, so a sentence that holds one is a place for it."""

FOLDS, SEED = 5, 0

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Contract:
    """``gold`` has the labelled spans of each head; ``answers`` whether the lawyers say that there is such a clause."""

    id: str
    texts: list[str]
    spans: list[tuple[int, int]]
    gold: list[list[tuple[int, int]]]
    answers: Flags
    found: Floats

    @cached_property
    def holds(self) -> Flags:
        """(n, h): sentences of which a label covers most, or that cover most of a label."""
        return self._labelled(loose=True)

    @cached_property
    def equals(self) -> Flags:
        """(n, h): sentences that are, at least for the most part, what was labelled."""
        return self._labelled(loose=False)

    def _labelled(self, *, loose: bool) -> Flags:
        labelled = np.zeros(self.found.shape, np.bool_)
        for head, spans in enumerate(self.gold):
            for left, right in spans:
                for row, (start, end) in enumerate(self.spans):
                    shared = min(end, right) - max(start, left)
                    if shared <= 0:
                        continue
                    equal = shared / (max(end, right) - min(start, left)) >= 0.5
                    named = HEADS[head] in UNIVERSAL and shared / (right - left) >= 0.5
                    labelled[row, head] |= equal or named or (loose and shared / (end - start) >= 0.6)
        return labelled


def _heads() -> dict[str, str]:
    """Title → id of the categories that both CUAD and the default playbook have."""
    return {item.title: item.id for item in default_playbook().categories if item.kind == "clause"}


HEADS: tuple[str, ...] = tuple(_heads().values())


def folds_of(contracts: int) -> NDArray[np.int64]:
    """The fold of each contract."""
    return np.random.default_rng(SEED).permutation(contracts) % FOLDS


def load_contracts(data: Path) -> list[Contract]:
    """Every contract under ``data``, a folder as the shared one: ``labels.jsonl`` and ``texts``."""
    lines = (data / "labels.jsonl").read_text("utf-8").splitlines()
    return [_contract(json.loads(line), data) for line in lines]


def _contract(label: dict[str, Any], data: Path) -> Contract:
    text = (data / "texts" / f"{label['id']}.txt").read_bytes().decode()
    spans = find_sentences(DocumentText("txt", text, (), ()))
    ids, places = _heads(), {head: place for place, head in enumerate(HEADS)}
    gold: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for span in label["spans"]:
        gold[ids[span["category"]]].append((span["start"], span["end"]))
    found = np.zeros((len(spans), len(HEADS)), np.float32)
    starts = [start for start, _ in spans]
    for finding in scan(text, default_playbook(), device="cpu").findings:
        if finding.category in places:
            found[sentence_at(starts, finding.start), places[finding.category]] = 1
    answers = {ids[title]: answer for title, answer in label["answers"].items()}
    return Contract(
        label["id"],
        [text[start:end] for start, end in spans],
        spans,
        [gold[head] for head in HEADS],
        np.array([answers[head] for head in HEADS]),
        found,
    )
