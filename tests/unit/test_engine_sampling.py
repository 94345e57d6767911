"""Sampling against a plain reference that sorts everything, and its independence of the rest of the batch."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from services.errors import InvalidRequest
from workers.engines import rows
from workers.engines.base import Sampling
from workers.engines.sampling import Chooser, choose, choose_among

CASES = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.3),
    Sampling(temperature=2.0, top_k=7),
    Sampling(temperature=1.0, top_p=0.9),
    Sampling(temperature=1.5, top_p=0.999),
    Sampling(temperature=1.0, min_p=0.05),
    Sampling(temperature=1.3, top_k=40, top_p=0.8, min_p=0.02),
    Sampling(temperature=0.7, top_k=5000, top_p=0.95),
]


def seeded(case: Sampling, seed: int) -> Chooser:
    return Chooser(
        Sampling(temperature=case.temperature, top_p=case.top_p, top_k=case.top_k, min_p=case.min_p, seed=seed)
    )


def allowed(logits: NDArray[np.float32], case: Sampling) -> dict[int, float]:
    """Tokens that may be drawn, with their probabilities: everything sorted, one cut after the other."""
    weights = np.exp((logits.astype(np.float64) - float(logits.max())) / case.temperature)
    order = sorted(range(len(weights)), key=lambda token: (-weights[token], token))
    if case.top_k:
        order = order[: case.top_k]
    total = sum(weights[token] for token in order)
    kept: list[int] = []
    mass = 0.0
    for token in order:
        kept.append(token)
        mass += weights[token]
        if mass >= case.top_p * total:
            break
    kept = [token for token in kept if weights[token] >= case.min_p]
    return {token: weights[token] / sum(weights[k] for k in kept) for token in kept}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_draws_follow_the_reference_distribution(case: Sampling) -> None:
    logits = (np.random.default_rng(5).standard_normal(1500) * 3).astype(np.float32)
    expected = allowed(logits, case)
    draws = 4000
    chooser = seeded(case, 11)
    tiled = np.tile(logits, (200, 1))
    found = np.concatenate([choose(tiled, [chooser] * 200) for _ in range(draws // 200)])
    # Float32 may move a token across a cut; its share is then tiny.
    outside = [token for token in found.tolist() if token not in expected]
    assert len(outside) <= draws * 0.002
    counts = np.bincount(found, minlength=len(logits)) / draws
    distance = 0.5 * sum(abs(counts[token] - expected.get(token, 0.0)) for token in range(len(logits)))
    # The total variation of 4,000 fair draws over this many likely tokens stays below this.
    likely = 1 / sum(share**2 for share in expected.values())
    assert distance < 0.02 + 0.6 * np.sqrt(likely * 3 / draws)


def test_greedy_takes_the_first_of_the_likeliest() -> None:
    logits = np.zeros((2, 600), np.float32)
    logits[0, [17, 400]] = 5
    logits[1, 599] = 1
    assert choose(logits, [Chooser(Sampling()), Chooser(Sampling(temperature=1.0, top_k=1))]) == [17, 599]


def test_a_row_does_not_depend_on_its_company() -> None:
    random = np.random.default_rng(3)
    logits = (random.standard_normal((len(CASES) + 1, 2000)) * 2).astype(np.float32)
    alone = [[int(choose(logits[row : row + 1], [chooser])[0]) for _ in range(20)]
             for row, chooser in enumerate(seeded(case, 40 + row) for row, case in enumerate(CASES))]  # fmt: skip
    together = [seeded(case, 40 + row) for row, case in enumerate(CASES)]
    for step in range(20):
        order = list(random.permutation(len(CASES)))
        company = np.ascontiguousarray(logits[[*order, len(CASES)]])
        tokens = choose(company, [*(together[row] for row in order), Chooser(Sampling())])
        for place, row in enumerate(order):
            assert int(tokens[place]) == alone[row][step]


@pytest.mark.parametrize("scale", [3.0, 0.4])
def test_the_greatest_logits_are_enough_to_choose_by(scale: float) -> None:
    """Logits that are equal or near to each other among them, in any order."""
    random = np.random.default_rng(21)
    cases = [case for case in CASES if 0 < case.top_k <= 64] + [Sampling(), Sampling(temperature=1.0, top_k=1)]
    logits = np.round(random.standard_normal((len(cases) * 40, 3000)) * scale, 1).astype(np.float32)
    ways: list[list[Chooser]] = [[seeded(cases[row % len(cases)], row) for row in range(len(logits))] for _ in range(2)]
    assert all(0 < chooser.nearest <= 64 for chooser in ways[0])
    expected = choose(logits, ways[0])
    order = np.argsort(-logits, axis=1, kind="stable")
    # All that equal the last of 64 may be among them: here those with the first ids are.
    kept = np.take_along_axis(logits, order[:, :64], axis=1)
    shuffled = np.lexsort((random.random(kept.shape), -kept))
    found = choose_among(
        np.take_along_axis(kept, shuffled, axis=1),
        np.take_along_axis(order[:, :64], shuffled, axis=1).astype(np.int32),
        ways[1],
    )
    assert found == expected


def test_rows_without_a_greatest_logit_are_unusable() -> None:
    logits = np.array([[np.nan] * 64, [np.inf] + [1.0] * 63, [-np.inf] * 64, [2.0] + [-np.inf] * 63], np.float32)
    tokens = np.tile(np.arange(64, dtype=np.int32) + 7, (4, 1))
    for case in (Sampling(), Sampling(temperature=0.8, top_k=40, top_p=0.9, seed=1)):
        assert choose_among(logits.copy(), tokens.copy(), [Chooser(case)] * 4) == [-1, -1, -1, 7]


def test_what_needs_all_logits_says_so() -> None:
    for case in (
        Sampling(temperature=1.0),
        Sampling(logprobs=0),
        Sampling(logit_bias={3: 1.0}),
        Sampling(temperature=1.0, top_k=5, frequency_penalty=0.1),
        Sampling(repetition_penalty=1.1),
    ):
        assert Chooser(case).nearest == 0


def test_excluded_tokens_are_never_drawn_and_unusable_rows_are_told() -> None:
    logits = np.full((3, 1000), -np.inf, np.float32)
    logits[0, 321] = -50.0
    logits[1, 5] = np.nan
    case = Sampling(temperature=3.0, top_p=0.99, seed=1)
    assert choose(logits, [Chooser(case), Chooser(Sampling()), Chooser(case)]) == [321, -1, -1]


@pytest.mark.parametrize(
    "bad",
    [
        Sampling(temperature=float("nan")),
        Sampling(temperature=-0.1),
        Sampling(temperature=float("inf")),
        Sampling(top_p=0.0),
        Sampling(top_p=float("nan")),
        Sampling(min_p=1.5),
        Sampling(top_k=-1),
        Sampling(max_tokens=0),
        Sampling(seed=2**64),
        Sampling(stop=("",)),
        Sampling(stop=("x",) * 17),
        Sampling(stop=("x" * 2**20,)),
        Sampling(stop=("x",), json_schema={}),
        Sampling(stop=("x",), regex="x"),
        Sampling(grammar="start: /x/", regex="x"),
        Sampling(repetition_penalty=0.0),
        Sampling(repetition_penalty=float("nan")),
        Sampling(frequency_penalty=2.5),
        Sampling(presence_penalty=float("inf")),
        Sampling(logit_bias=dict.fromkeys(range(10_000), 1.0)),
        Sampling(logit_bias={1: 101.0}),
        Sampling(logit_bias={1: float("nan")}),
        Sampling(logit_bias={-1: 1.0}),
        Sampling(logprobs=21),
    ],
    ids=lambda bad: str(bad)[:200],
)
def test_absurd_sampling_is_refused(bad: Sampling) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bad.check()
    assert caught.value.code == "sampling_invalid"


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = (np.random.default_rng(8).standard_normal((40, 3001)) * 2).astype(np.float32)
    found: list[list[int]] = []
    for cores in (1, 2, 8):
        monkeypatch.setattr(rows, "_cores", lambda cores=cores: cores)
        monkeypatch.setattr(rows, "VALUES_A_THREAD", 3001)
        choosers = [seeded(CASES[row % len(CASES)], row) for row in range(40)]
        found.append([int(token) for _ in range(5) for token in choose(logits, choosers)])
    assert found[0] == found[1] == found[2]


def test_what_fails_in_another_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_cores", lambda: 4)
    done: list[int] = []

    def work(row: int) -> None:
        if row == 3:
            raise ValueError("row 3")
        done.append(row)

    with pytest.raises(ValueError, match="row 3"):
        rows.each_row(work, range(16), rows.VALUES_A_THREAD)
    rows.each_row(done.append, range(100, 116), rows.VALUES_A_THREAD)
    assert set(done) >= set(range(100, 116))


def test_penalties_and_biases_touch_the_tokens_concerned_alone() -> None:
    case = Sampling(
        repetition_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25, logit_bias={5: 10.0, 6: 100.0, 7: -3.0}
    )
    chooser = Chooser(case, [1, 2, *[3] * 64])
    logits = np.zeros((1, 600), np.float32)
    logits[0, :8] = [4.0, 4.0, 4.0, 4.0, -4.0, 1.0, -np.inf, 1.0]
    before = logits.copy()
    seen: list[NDArray[np.float32]] = []

    def changed() -> NDArray[np.float32]:
        row = logits[0].copy()
        chooser.adjustments.apply(row)
        return row

    seen.append(changed())
    # Of the prompt the last 64 tokens count for repetition, and none for the other two.
    assert seen[0][:8].tolist() == [4.0, 4.0, 4.0, 2.0, -4.0, 11.0, -np.inf, -2.0]
    for token in (4, 4, 0):
        chooser.observe(token)
    assert changed()[:5].tolist() == [2.0 - 0.75, 4.0, 4.0, 2.0, -8.0 - 1.25]
    assert not changed()[8:].any()
    assert choose(logits, [chooser]) == [5]
    assert np.array_equal(logits, before), "the logits are left as they were"
    for token in range(100, 300):
        chooser.observe(token)
    assert changed()[[0, 3, 100, 299]].tolist() == [3.25, 4.0, -0.75, -0.75], "more tokens than at first had room"


def test_logprobs_are_the_models_own() -> None:
    logits = (np.random.default_rng(2).standard_normal((1, 5000)) * 3).astype(np.float32)
    logits[0, 17] = -np.inf
    exact = logits[0].astype(np.float64) - np.log(np.exp(logits[0].astype(np.float64)).sum())
    chooser = Chooser(Sampling(temperature=3.0, top_k=50, seed=1, logit_bias={4: 100.0}, logprobs=5))
    for _ in range(3):
        token = int(choose(logits, [chooser])[0])
        chooser.observe(token)
    assert len(chooser.logprobs) == 3
    best = np.argsort(-exact)[:5].tolist()
    for found in chooser.logprobs:
        assert found.token == 4, "the bias decides what is chosen"
        assert found.logprob == pytest.approx(exact[4], abs=1e-4)
        assert [other.token for other in found.top] == best
        assert [other.logprob for other in found.top] == pytest.approx(exact[best].tolist(), abs=1e-4)
    alone = Chooser(Sampling(logprobs=0))
    alone.observe(int(choose(logits, [alone])[0]))
    assert (alone.logprobs[0].token, alone.logprobs[0].top) == (best[0], ())


@pytest.mark.parametrize(
    "case",
    [Sampling(temperature=1.0, top_p=1e-4, seed=3), Sampling(temperature=9.0, top_p=0.5, min_p=1.0, seed=3)],
    ids=["top_p", "min_p"],
)
def test_a_tiny_share_of_equal_tokens_ends(case: Sampling) -> None:
    logits = np.zeros((1, 20_000), np.float32)
    chooser = Chooser(case)
    found = {int(choose(logits, [chooser])[0]) for _ in range(30)}
    # Equal tokens rank by id: two in 20,000 make a ten-thousandth, and half of them the first 10,000.
    assert found <= set(range(2 if case.top_p < 0.1 else 10_000))
    assert len(found) > 1
