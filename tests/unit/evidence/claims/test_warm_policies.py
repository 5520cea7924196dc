from __future__ import annotations

import numpy as np
import pytest

from warmkit.evidence.claims.warm_policies import Track, collapse_step, compare, oracle_proxy, win_rate
from warmkit.evidence.testbed.bed import Testbed


def track(*gold: float, kl: float = 1.0) -> Track:
    """A run whose gold reward is evaluated every step, and whose KL grows evenly."""
    points = [{"at": float(step), "gold": each, "kl": kl * step} for step, each in enumerate(gold)]
    return Track(points, [np.full((1, 2), each) for each in gold])


def test_a_run_that_keeps_half_of_its_gain_collapses_at_its_last_step() -> None:
    assert collapse_step(track(1.0, 3.0, 2.0, 2.1).points) == 3
    assert collapse_step(track(1.0, 3.0, 1.9, 2.1).points) == 2


def test_a_run_that_only_falls_collapses_at_once() -> None:
    assert collapse_step(track(1.0, 0.9, 0.8).points) == 1


def test_a_run_is_compared_with_the_mean_of_others() -> None:
    numbers = compare("gap", track(0.0, 2.0, 4.0), [track(0.0, 1.0, 2.0), track(0.0, 0.0, 0.0)])
    assert numbers == {"gap_mean": pytest.approx(1.5), "gap_end": pytest.approx(3.0), "gap_at_kl": pytest.approx(1.5)}


def test_at_the_same_kl_the_faster_of_two_equal_runs_is_not_ahead() -> None:
    numbers = compare("gap", track(0.0, 2.0, 4.0, kl=2.0), [track(0.0, 1.0, 2.0)])
    assert numbers["gap_mean"] > 0
    assert numbers["gap_at_kl"] == pytest.approx(0)


def test_win_rates_of_two_policies_add_up_to_one() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.integers(5, size=(3, 4)).astype(float), draw.integers(5, size=(3, 6)).astype(float)
    assert win_rate(a, b) + win_rate(b, a) == pytest.approx(1)
    assert win_rate(a, a) == 0.5
    assert win_rate(a + 5, b) == 1


def test_the_best_step_is_that_of_the_highest_mean() -> None:
    assert track(1.0, 3.0, 2.0).best.mean() == 3


def test_the_oracle_as_a_reward_has_the_deviation_one(tiny_bed: Testbed) -> None:
    from warmkit.data.preferences import read_pairs

    term = oracle_proxy(tiny_bed)
    rows = [(str(pair.prompt), str(text)) for pair in read_pairs(tiny_bed.validation) for text in (pair.chosen, pair.rejected)]
    scores = np.array(tiny_bed.gold([prompt for prompt, _ in rows], [text for _, text in rows]))
    assert (term.weight * scores).std() == pytest.approx(1)
