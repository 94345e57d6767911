"""Packing texts into batches: complete, within the limits, tight, and in a time that does not explode."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from workers.engines.embeddings import pack

CAPACITY, MOST = 512, 64


class Counted(Sequence[int]):
    """Lengths that count how often they are looked at."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths
        self.looks = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.looks += 1
        return self.lengths[index]


def first_fit(lengths: list[int]) -> int:
    """Batches that first fit by decreasing length needs, which looks at every open batch for each text."""
    open_batches: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        for batch in open_batches:
            if batch[0] + length <= CAPACITY and batch[1] < MOST:
                batch[0] += length
                batch[1] += 1
                break
        else:
            open_batches.append([length, 1])
    return len(open_batches)


def check(lengths: list[int], batches: list[list[int]]) -> None:
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in batch) <= CAPACITY for batch in batches)
    assert all(0 < len(batch) <= MOST for batch in batches)


@pytest.mark.parametrize("longest", [1, 3, 40, 300, CAPACITY])
@pytest.mark.parametrize("count", [0, 1, 65, 700])
def test_every_text_is_in_one_batch_that_fits(count: int, longest: int) -> None:
    chance = random.Random(count * longest)
    lengths = [chance.randint(1, longest) for _ in range(count)]
    batches = pack(lengths, CAPACITY, MOST)
    check(lengths, batches)
    assert len(batches) <= first_fit(lengths) * 1.02 + 1
    assert [lengths[batch[0]] for batch in batches] == sorted((lengths[batch[0]] for batch in batches), reverse=True)


def test_many_texts_are_looked_at_a_few_times_each() -> None:
    chance = random.Random(5)
    # Nearly all are over half of a batch, so that most batches stay open with room that nothing fills.
    lengths = Counted([chance.randint(200, 400) for _ in range(4000)])
    batches = pack(lengths, CAPACITY, MOST)
    looks = lengths.looks
    check(lengths.lengths, batches)
    assert looks <= 4 * 4000


def test_real_clauses_are_packed_as_tightly_as_by_first_fit(data: Path) -> None:
    texts = [path.read_text("utf-8") for path in sorted((data / "cuad" / "texts").glob("*.txt"))[:20]]
    paragraphs = [part for text in texts for part in text.split("\n\n") if len(part) >= 20]
    # The tokenizer is not the point here: about four characters are one token.
    lengths = [min(CAPACITY, 2 + len(part) // 4) for part in paragraphs[:512]]
    assert len(lengths) == 512, json.dumps([len(texts), len(paragraphs)])
    batches = pack(lengths, CAPACITY, MOST)
    check(lengths, batches)
    assert len(batches) <= first_fit(lengths)
