"""Packing texts of many callers into batches: complete, within the limits, tight, urgent callers first."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from services.errors import Transient
from workers.engines.packing import Call, Share, Waiting, fill

CAPACITY, MOST = 512, 64


def call(lengths: list[int], priority: int = 2) -> Call:
    return Call([[0] * length for length in lengths], priority=priority, dimensions=1)


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


def batches_of(calls: list[Call]) -> list[list[Share]]:
    batches: list[list[Share]] = []
    while batch := fill([each for each in calls if each.waits], CAPACITY, MOST):
        texts = [each.tokens[index] for each, members in batch for index in members]
        assert sum(map(len, texts)) <= CAPACITY
        assert 0 < len(texts) <= MOST
        batches.append(batch)
    return batches


@pytest.mark.parametrize("longest", [1, 3, 40, 300, CAPACITY])
@pytest.mark.parametrize("count", [0, 1, 65, 700])
def test_every_text_is_in_one_batch_that_fits(count: int, longest: int) -> None:
    chance = random.Random(count * longest)
    lengths = [chance.randint(1, longest) for _ in range(count)]
    one = call(lengths)
    batches = batches_of([one])
    assert sorted(index for batch in batches for _, members in batch for index in members) == list(range(count))
    assert len(batches) == first_fit(lengths)


def test_real_clauses_are_packed_as_tightly_as_by_first_fit(data: Path) -> None:
    texts = [path.read_text("utf-8") for path in sorted((data / "cuad" / "texts").glob("*.txt"))[:20]]
    paragraphs = [part for text in texts for part in text.split("\n\n") if len(part) >= 20]
    # The tokenizer is not the point here: about four characters are one token.
    lengths = [min(CAPACITY, 2 + len(part) // 4) for part in paragraphs[:512]]
    assert len(lengths) == 512
    assert len(batches_of([call(lengths)])) <= first_fit(lengths)


def test_calls_share_a_batch() -> None:
    calls = [call([10, 20]) for _ in range(5)]
    assert batches_of(calls) == [[(each, [1, 0]) for each in calls]]


def test_the_urgent_come_first_and_the_rest_of_their_batch_is_used() -> None:
    bulk, urgent = call([500, 400, 100, 10], priority=4), call([300], priority=0)
    batches = batches_of([bulk, urgent])
    assert batches[0] == [(urgent, [0]), (bulk, [2, 3])]
    assert batches[1:] == [[(bulk, [0])], [(bulk, [1])]]


def test_a_large_call_does_not_hold_up_one_that_comes_later() -> None:
    waiting = Waiting(CAPACITY, MOST)
    large, small = call([400] * 20), call([300])
    assert waiting.add(large)
    for _ in range(5):
        assert waiting.next_batch()[0][0] is large
    assert waiting.add(small)
    served = [waiting.next_batch()[0][0] for _ in range(2)]
    assert small in served


def test_who_comes_later_does_not_catch_up_on_what_others_had() -> None:
    waiting = Waiting(CAPACITY, MOST)
    first, second = call([400] * 20), call([400] * 20)
    assert waiting.add(first)
    for _ in range(8):
        waiting.next_batch()
    assert waiting.add(second)
    turns = [waiting.next_batch()[0][0] for _ in range(8)]
    assert turns.count(first) == turns.count(second) == 4


def test_vectors_come_to_their_texts_and_the_last_ends_the_call() -> None:
    one = call([5, 9, 7])
    for each, members in [share for batch in batches_of([one]) for share in batch]:
        assert not one.done.is_set()
        each.deliver(members, np.array([[len(each.tokens[index])] for index in members], np.float32))
    assert one.done.is_set()
    assert one.vectors.tolist() == [[5], [9], [7]]
    assert call([]).done.is_set()


def test_a_dropped_call_is_in_no_batch_and_a_closed_one_ends() -> None:
    waiting = Waiting(CAPACITY, MOST)
    dropped, waits = call([1]), call([2])
    assert waiting.add(dropped)
    assert waiting.add(waits)
    waiting.drop(dropped)
    waiting.drop(dropped)
    assert waiting.next_batch() == [(waits, [0])]
    late = call([1])
    assert waiting.add(late)
    waiting.close(Transient("closed", code="engine_closed"))
    assert waiting.next_batch() == []
    assert late.done.is_set()
    assert isinstance(late.error, Transient)
    assert not waiting.add(call([1]))
