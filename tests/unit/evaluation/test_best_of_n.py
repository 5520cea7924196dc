"""Best-of-N is the mean over all subsets, checked by listing them."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest

from warmkit.errors import NonFiniteError, UsageError
from warmkit.evaluation.best_of_n import best_of_curves, best_of_n, choice_probabilities, default_sizes, kl_of_best_of

Array = np.ndarray


def brute_force(proxy: Array, scores: Array, n: int) -> float:
    """Return the mean over all subsets; where several are best, the mean of theirs."""
    found: list[float] = []
    for subset in combinations(range(len(proxy)), n):
        best = max(proxy[place] for place in subset)
        found.append(float(np.mean([scores[place] for place in subset if proxy[place] == best])))
    return float(np.mean(found))


@pytest.mark.parametrize("values", [2, 3, 10_000], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("n", range(1, 8))
def test_it_is_the_mean_over_all_subsets(values: int, n: int) -> None:
    draw = np.random.default_rng(n)
    proxy, scores = draw.integers(values, size=(5, 7)).astype(float), draw.normal(size=(5, 7))
    expected = [brute_force(*rows, n) for rows in zip(proxy, scores)]
    assert best_of_n(proxy, scores, n) == pytest.approx(expected, abs=1e-12)


def test_of_one_it_is_the_mean_and_of_all_the_score_of_the_best() -> None:
    draw = np.random.default_rng(0)
    proxy, scores = draw.normal(size=(2, 20, 64))
    assert best_of_n(proxy, scores, 1) == pytest.approx(scores.mean(1), abs=1e-12)
    assert best_of_n(proxy, scores, 64) == pytest.approx(scores[np.arange(20), proxy.argmax(1)], abs=1e-12)
    assert best_of_n(scores, scores, 64) == pytest.approx(scores.max(1), abs=1e-12)


def test_it_is_unbiased_the_pool_may_be_larger_than_n() -> None:
    """Completions come from a policy over three values; best-of-2 of it is known exactly, whatever the size of the pool."""
    values, chances = np.array([0.0, 1.0, 2.0]), np.array([0.5, 0.3, 0.2])
    truth = sum(p * q * max(a, b) for (a, p), (b, q) in product(zip(values, chances), repeat=2))
    expected = 0.0
    for places in product(range(3), repeat=4):  # every pool of four, with its probability
        pool = values[list(places)][None]
        expected += math.prod(chances[list(places)]) * best_of_n(pool, pool, 2)[0]
    assert expected == pytest.approx(truth, abs=1e-12)


def test_a_constant_proxy_chooses_like_nobody() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 8))
    for n in (1, 3, 8):
        assert best_of_n(np.zeros((3, 8)), scores, n) == pytest.approx(scores.mean(1), abs=1e-12)


def test_only_the_order_of_the_proxy_counts() -> None:
    proxy, scores = np.random.default_rng(2).normal(size=(2, 4, 9))
    assert best_of_n(np.exp(5 * proxy), scores, 4) == pytest.approx(best_of_n(proxy, scores, 4), abs=1e-12)


def test_a_thousand_samples_are_no_problem() -> None:
    found = choice_probabilities(np.arange(1000.0)[None], 500)[0]
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert found[-1] == pytest.approx(0.5, abs=1e-12)  # the best of all is in half of the subsets
    assert found[:499].max() == 0


@pytest.mark.parametrize("n", [0, 4, -1])
def test_sizes_that_no_subset_has_are_refused(n: int) -> None:
    with pytest.raises(UsageError, match="expected 1 to 3"):
        best_of_n(np.zeros((1, 3)), np.zeros((1, 3)), n)


def test_other_mistakes_are_refused() -> None:
    with pytest.raises(UsageError, match="scores of the same completions"):
        best_of_n(np.zeros((1, 3)), np.zeros((1, 4)), 2)
    with pytest.raises(NonFiniteError, match="expected finite scores"):
        best_of_n(np.array([[0.0, math.nan]]), np.zeros((1, 2)), 2)


def test_the_kl_has_the_values_of_its_formula() -> None:
    golden = {1: 0.0, 2: 0.1931472, 4: 0.6362944, 64: 3.1745081, 1000: 5.9087553}
    assert {n: round(kl_of_best_of(n), 7) for n in golden} == golden


def test_the_kl_is_that_of_the_best_of_n_of_a_continuous_reward() -> None:
    """KL(max of N uniforms, uniform), the integral of N u^(N-1) log(N u^(N-1)), summed over a fine grid."""
    u = (np.arange(200_000) + 0.5) / 200_000
    for n in (2, 5, 16):
        density = n * u ** (n - 1)
        assert kl_of_best_of(n) == pytest.approx(float((density * np.log(density)).mean()), abs=1e-4)


def test_curves_pair_the_choosers_on_the_same_samples() -> None:
    draw = np.random.default_rng(3)
    gold = draw.normal(size=(50, 16))
    choosers = {"noisy": gold + draw.normal(size=gold.shape), "exact": gold, "wrong": -gold}
    points = best_of_curves(choosers, {"gold": gold, "length": -gold}, [1, 4, 16])
    assert len(points) == 3 * 2 * 3
    of = {(each.chooser, each.control, each.n): each for each in points}
    for chooser in choosers:
        start = of[chooser, "gold", 1]
        assert (start.kl, start.score.value) == (0, pytest.approx(gold.mean()))
        assert max(abs(each) for each in vars(start.gain).values()) < 1e-12
    exact, noisy, wrong = (of[name, "gold", 16] for name in ("exact", "noisy", "wrong"))
    assert exact.score.value == exact.proxy == pytest.approx(gold.max(1).mean())
    assert vars(noisy.lead) == {"value": 0, "low": 0, "high": 0}
    assert exact.lead.value == pytest.approx(exact.score.value - noisy.score.value)
    assert exact.lead.low > 0
    assert wrong.gain.high < 0
    assert wrong.proxy == pytest.approx(-wrong.score.value)
    assert of["exact", "length", 16].score.value == pytest.approx(-exact.score.value)


@pytest.mark.parametrize(("samples", "sizes"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])])
def test_by_default_sizes_double_up_to_all_samples(samples: int, sizes: list[int]) -> None:
    assert default_sizes(samples) == sizes
