"""Who is computed when: urgent work takes a seat at once, parked work goes on, prefixes are computed once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.errors import Transient
from services.gguf_header import read_header
from services.models import Catalog
from tests.conftest import wait_until
from tests.tiny_model import CONTEXT, write_tiny_model
from workers.engines.base import Generation, Sampling
from workers.engines.llama import LlamaGeneration
from workers.engines.llama_context import LlamaContext
from workers.engines.plan import ContextPlan

SEATS = 4
# Twice what logits were seen to differ by where tokens that came one by one are computed again in one batch.
ROUNDING = 0.15
BULK = [(f"term {index} deed {'day ' * (index + 5)}sum", Sampling(max_tokens=120)) for index in range(12)]
DOCUMENT = "alpha beta rent lien omega " * 40
QUESTIONS = [f"{DOCUMENT}{word} term" for word in ("fee", "sum", "deed", "day", "gamma", "delta")]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_tiny_model(tmp_path_factory.mktemp("seats") / "tiny.gguf")
    Catalog(path.parent).add(path, name="tiny")
    return path


@pytest.fixture(params=[False, True], ids=["texts after a step", "texts during the next"])
def load(path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., LlamaGeneration]]:
    """Loads the model for each of the two ways to pass texts on, of which a GPU has the second."""
    loaded: list[LlamaGeneration] = []

    def make(**plan: Any) -> LlamaGeneration:
        header = read_header(path)
        model = Catalog(path.parent).get("tiny")
        values: dict[str, Any] = {
            "tokens": CONTEXT,
            "sequences": SEATS,
            "batch": 128,
            "cells": CONTEXT * SEATS,
            "gpu_layers": 0,
        }
        engine = LlamaGeneration(model, header, ContextPlan(**(values | plan)), threads=1)
        loop: Any = engine._loop
        loop._ahead = request.param
        loaded.append(engine)
        return engine

    yield make
    for engine in loaded:
        engine.close()


def counts(engine: LlamaGeneration) -> dict[str, int]:
    return engine.meter.view("tiny", 0.0).counts


class Bulk:
    """All of ``requests`` at once in the background."""

    def __init__(self, engine: LlamaGeneration, requests: list[tuple[str, Sampling]] = BULK) -> None:
        self._pool = ThreadPoolExecutor(len(requests))
        self._texts = [self._pool.submit(engine.generate, *request, priority=4) for request in requests]
        seats: Any = engine._loop._seats
        wait_until(lambda: len(seats.running) == SEATS and all(item.produced for item in seats.running), what="bulk")

    def results(self) -> list[Generation]:
        found = [text.result() for text in self._texts]
        self._pool.shutdown()
        return found


def test_critical_work_is_done_while_bulk_fills_every_seat(load: Callable[..., LlamaGeneration]) -> None:
    engine = load()
    alone = [engine.generate(*request) for request in BULK]
    urgent = engine.generate("rent", Sampling(max_tokens=5))
    bulk = Bulk(engine)
    steps = engine._loop.steps
    assert engine.generate("rent", Sampling(max_tokens=5), priority=0) == urgent
    # A step to seat and read it and one for each further token, with one of the bulk's in between each, at most.
    assert engine._loop.steps - steps <= 12
    assert counts(engine)["parked"] >= 1
    assert bulk.results() == alone


@pytest.mark.parametrize("priority", [0, 2])
def test_a_prompt_that_somebody_waits_for_is_read_without_bulk_beside_it(
    load: Callable[..., LlamaGeneration], monkeypatch: pytest.MonkeyPatch, priority: int
) -> None:
    engine = load()
    gate = threading.Event()
    context: Any = engine._context
    real: Callable[[Any], int] = context.decode
    steps: list[int] = []

    def decode(batch: Any) -> int:
        gate.wait(10)
        steps.append(batch.size)
        return real(batch)

    monkeypatch.setattr(context, "decode", decode)
    loop: Any = engine._loop
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(engine.generate, "fee", Sampling(max_tokens=1), priority=priority)
        wait_until(lambda: loop._seats.running, what="a step under way")
        others = [
            pool.submit(engine.generate, prompt, Sampling(max_tokens=1), priority=urgency)
            for prompt, urgency in ((BULK[9][0], 4), ("rent lien", priority))
        ]
        wait_until(lambda: len(loop._arrived) == 2, what="both")
        gate.set()
        assert all(work.result().tokens_out <= 1 for work in (first, *others))
    lengths = [engine.count_tokens(prompt) for prompt in ("fee", "rent lien", BULK[9][0])]
    assert steps == lengths


def differs(found: Generation, alone: Generation) -> bool:
    """Whether the texts part, which they may only where the two likeliest tokens are within the rounding."""
    assert found.logprobs and alone.logprobs
    for one, other in zip(found.logprobs, alone.logprobs, strict=False):
        if one.token != other.token:
            first, second = other.top
            assert one.token == second.token and first.logprob - second.logprob <= ROUNDING
            return True
    return found.text != alone.text


def test_parked_work_is_computed_again_where_its_state_found_no_place(
    load: Callable[..., LlamaGeneration], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.engines.llama.HOST_SHARE", 0.0)
    engine = load()
    requests = [(prompt, replace(sampling, logprobs=2)) for prompt, sampling in BULK]
    alone = [engine.generate(*request) for request in requests]
    bulk = Bulk(engine, requests)
    for _ in range(3):
        engine.generate("rent", Sampling(max_tokens=3), priority=0)
    parted = sum(differs(*texts) for texts in zip(bulk.results(), alone, strict=True))
    found = counts(engine)
    assert found["parked_lost"] == found["parked"] >= 1
    # What was not computed again is the same to the last token.
    assert parted <= found["parked"]


def test_work_of_the_same_urgency_parks_nobody(load: Callable[..., LlamaGeneration]) -> None:
    engine = load()
    bulk = Bulk(engine)
    engine.generate("rent", Sampling(max_tokens=3), priority=4)
    bulk.results()
    assert "parked" not in counts(engine)


def test_a_full_shared_cache_parks_and_every_text_is_whole(
    load: Callable[..., LlamaGeneration], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half precision rounds by where a token stands in a shared cache, which moves near ties by up to 0.03.
    def exact(*args: Any, **plan: Any) -> LlamaContext:
        return LlamaContext(*args, **(plan | {"kv_type": "f32", "flash_attn": False}))

    monkeypatch.setattr("workers.engines.llama.LlamaContext", exact)
    split = load()
    alone = [split.generate(*request) for request in BULK]
    cells = CONTEXT // 2
    shared = load(unified=True, tokens=cells, cells=cells)
    texts = Bulk(shared).results()
    assert texts == alone
    assert counts(shared)["parked"] >= 2
    room = cells - shared.count_tokens("rent")
    assert shared.generate("rent", Sampling(max_tokens=room)).tokens_out == room


def test_a_document_asked_many_questions_is_read_once(load: Callable[..., LlamaGeneration]) -> None:
    plain = load()
    sampling = Sampling(max_tokens=12)
    alone = [plain.generate(question, sampling, scope=question) for question in QUESTIONS]
    assert "prefix_tokens" not in counts(plain)
    length = plain.count_tokens(DOCUMENT)
    at_once = load()
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        assert list(pool.map(lambda question: at_once.generate(question, sampling, scope="a"), QUESTIONS)) == alone
    one_by_one = load()
    assert [one_by_one.generate(question, sampling, scope="a") for question in QUESTIONS] == alone
    for engine in (at_once, one_by_one):
        saved = counts(engine)["prefix_tokens"]
        assert saved >= (len(QUESTIONS) - 1) * (length - 8), "all but the first found the document computed"


def test_nobody_shares_with_another_scope(load: Callable[..., LlamaGeneration]) -> None:
    engine = load()
    for scope in ("a", "b"):
        engine.generate(QUESTIONS[0], Sampling(max_tokens=3), scope=scope)
    assert "prefix_tokens" not in counts(engine)
    engine.generate(QUESTIONS[1], Sampling(max_tokens=3), scope="a")
    assert counts(engine)["prefix_hits"] == 1


def test_after_an_erasure_nothing_of_earlier_prompts_is_kept(load: Callable[..., LlamaGeneration]) -> None:
    engine = load()
    first = [engine.generate(question, Sampling(max_tokens=3), scope="a") for question in QUESTIONS[:3]]
    loop: Any = engine._loop
    seats = loop._seats
    assert seats._prefixes.bytes > 0
    engine.forget()
    wait_until(lambda: seats._prefixes.bytes == 0 and not seats._prefixes._seen, what="the forgetting")
    assert not any(len(left.tokens) for left in seats._free.values()) and not loop._fed
    hits = counts(engine)["prefix_hits"]
    assert engine.generate(QUESTIONS[0], Sampling(max_tokens=3), scope="a") == first[0]
    assert counts(engine)["prefix_hits"] == hits


def test_nothing_is_taken_from_a_step_that_failed(
    load: Callable[..., LlamaGeneration], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load()
    expected = engine.generate(QUESTIONS[0], Sampling(max_tokens=4), scope="a")
    context: Any = engine._context
    real: Callable[[Any], int] = context.decode

    codes = iter([0, 0])

    def decode(batch: Any) -> int:
        real(batch)
        return next(codes, -3)

    monkeypatch.setattr(context, "decode", decode)
    with pytest.raises(Transient):
        engine.generate(QUESTIONS[0], Sampling(max_tokens=4), scope="b")
    monkeypatch.setattr(context, "decode", real)
    assert engine.generate(QUESTIONS[0], Sampling(max_tokens=4), scope="b") == expected
    assert "prefix_hits" not in counts(engine)


def test_those_that_wait_for_a_prefix_go_on_when_its_reader_is_gone(
    load: Callable[..., LlamaGeneration], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(batch=32)
    expected = [engine.generate(question, Sampling(max_tokens=4), scope=question) for question in QUESTIONS[:2]]
    gate, gone = threading.Semaphore(0), threading.Event()
    context: Any = engine._context
    real: Callable[[Any], int] = context.decode

    def decode(batch: Any) -> int:
        gate.acquire(timeout=0 if gone.is_set() else 5)
        return real(batch)

    monkeypatch.setattr(context, "decode", decode)
    with ThreadPoolExecutor(2) as pool:
        reader = pool.submit(
            engine.generate, QUESTIONS[0], Sampling(max_tokens=4), scope="a", cancelled=gone.is_set
        )  # fmt: skip
        loop: Any = engine._loop
        wait_until(lambda: loop._seats.running, what="the reader")
        follower = pool.submit(engine.generate, QUESTIONS[1], Sampling(max_tokens=4), scope="a")
        wait_until(lambda: loop._arrived, what="the follower")
        gate.release()
        wait_until(lambda: len(loop._seats.running) == 2, what="both")
        request = loop._seats.running[0].request
        gone.set()
        wait_until(lambda: request.cancelled, what="the reader's end")
        gate.release(100)
        assert reader.result().finish_reason == "cancelled"
        assert follower.result() == expected[1]


def test_what_has_ended_is_computed_no_more(load: Callable[..., LlamaGeneration]) -> None:
    engine = load()
    alone = engine.generate(BULK[0][0], Sampling(max_tokens=40), scope="alone")
    stopped = Sampling(max_tokens=40, stop=(alone.text[20:26],))
    before = counts(engine)["step_tokens"]
    with ThreadPoolExecutor(2) as pool:
        longer = pool.submit(engine.generate, BULK[1][0], Sampling(max_tokens=120), scope="a")
        wait_until(lambda: counts(engine)["step_tokens"] > before, what="the longer one")
        shorter = engine.generate(BULK[0][0], stopped, scope="b")
        ended = [shorter, longer.result()]
    assert [each.finish_reason for each in (alone, *ended)] == ["length", "stop", "length"]
    computed = sum(generation.tokens_in + generation.tokens_out - 1 for generation in ended)
    # That a text ends at a stop string is seen a step late where texts are passed on during it.
    computed += engine._loop._ahead
    assert counts(engine)["step_tokens"] - before == computed


def test_who_waits_for_a_seat_can_be_cancelled_at_once(load: Callable[..., LlamaGeneration]) -> None:
    engine = load()
    context: Any = engine._context
    loop: Any = engine._loop
    gone, answered = threading.Event(), threading.Event()
    real: Callable[[Any], int] = context.decode

    def decode(batch: Any) -> int:
        answered.wait(0.02)  # those that run take seconds, until the one that waits has its answer
        return real(batch)

    context.decode = decode
    with ThreadPoolExecutor(SEATS + 1) as pool:
        running = [pool.submit(engine.generate, *BULK[place]) for place in range(SEATS)]
        wait_until(lambda: len(loop._seats.running) == SEATS, what="all seats taken")
        waiting = pool.submit(engine.generate, *BULK[SEATS], cancelled=gone.is_set)
        wait_until(lambda: loop._seats._waiting, what="the one that waits")
        gone.set()
        assert waiting.result().finish_reason == "cancelled"
        assert not any(each.done() for each in running)
        answered.set()
        assert all(each.result().finish_reason == "length" for each in running)
