"""Sampling against a plain reference that sorts everything, and its independence of the rest of the batch."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from services.errors import InvalidRequest
from workers.engines.base import Sampling
from workers.engines.sampling import Chooser, choose

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
    rows = np.tile(logits, (200, 1))
    found = np.concatenate([choose(rows, [chooser] * 200) for _ in range(draws // 200)])
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
    assert choose(logits, [Chooser(Sampling()), Chooser(Sampling(temperature=1.0, top_k=1))]).tolist() == [17, 599]


def test_a_row_does_not_depend_on_its_company() -> None:
    random = np.random.default_rng(3)
    logits = (random.standard_normal((len(CASES) + 1, 2000)) * 2).astype(np.float32)
    alone = [[int(choose(logits[row : row + 1], [chooser])[0]) for _ in range(20)]
             for row, chooser in enumerate(seeded(case, 40 + row) for row, case in enumerate(CASES))]  # fmt: skip
    together = [seeded(case, 40 + row) for row, case in enumerate(CASES)]
    for step in range(20):
        order = list(random.permutation(len(CASES)))
        rows = np.ascontiguousarray(logits[[*order, len(CASES)]])
        tokens = choose(rows, [*(together[row] for row in order), Chooser(Sampling())])
        for place, row in enumerate(order):
            assert int(tokens[place]) == alone[row][step]


def test_excluded_tokens_are_never_drawn_and_unusable_rows_are_told() -> None:
    logits = np.full((3, 1000), -np.inf, np.float32)
    logits[0, 321] = -50.0
    logits[1, 5] = np.nan
    case = Sampling(temperature=3.0, top_p=0.99, seed=1)
    assert choose(logits, [Chooser(case), Chooser(Sampling()), Chooser(case)]).tolist() == [321, -1, -1]


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
        Sampling(stop=("x",), json_schema={}),
    ],
    ids=str,
)
def test_absurd_sampling_is_refused(bad: Sampling) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bad.check()
    assert caught.value.code == "sampling_invalid"
