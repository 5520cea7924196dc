"""Win rates are antisymmetric, ties are half, and the scale has seven steps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from warmkit.errors import UsageError
from warmkit.evaluation.win_rates import Match, match_by_scores, seven_steps


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


@pytest.fixture
def rewards() -> tuple[np.ndarray, np.ndarray]:
    first, second = np.random.default_rng(0).normal(size=(2, 40, 3)).round(1)
    return first, second


def test_b_against_a_is_the_mirror_of_a_against_b(rewards: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = rewards
    there, back = match_by_scores(a, b, 0.2), match_by_scores(b, a, 0.2)
    assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)
    assert there.ties > 0
    assert there.win_rate.value == pytest.approx(1 - back.win_rate.value, abs=1e-12)
    assert there.win_rate.low == pytest.approx(1 - back.win_rate.high, abs=1e-12)
    assert there.score.value == pytest.approx(-back.score.value, abs=1e-12)
    for name in ("outcomes", "steps"):
        assert np.array_equal(getattr(there.reversed(), name), getattr(back, name))


def test_a_policy_against_itself_ties_everywhere(rewards: tuple[np.ndarray, np.ndarray]) -> None:
    match = match_by_scores(rewards[0], rewards[0])
    assert (match.wins, match.ties, match.losses) == (0, 120, 0)
    assert vars(match.win_rate) == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert vars(match.score) == {"value": 0, "low": 0, "high": 0}
    assert match.consistency is None


def test_rewards_within_the_margin_tie() -> None:
    a, b = np.array([[1.0, 1.0, 1.0, 1.0]]), np.array([[0.5, 0.4, 1.5, 1.6]])
    assert match_by_scores(a, b).outcomes.tolist() == [[1, 1, 0, 0]]
    within = match_by_scores(a, b, 0.5)
    assert within.outcomes.tolist() == [[0.5, 1, 0.5, 0]]
    assert within.steps[0, 0] == 0  # a tie is one on the scale too, though the chance of winning is above 0.6
    assert match_by_scores(a, b).steps[0, 0] == 0.5


def test_the_scale_has_the_steps_of_the_paper() -> None:
    chances = [0.5, 0.59, 0.61, 0.79, 0.81, 0.94, 0.96, 0.9999]
    golden = [0, 0, 0.5, 0.5, 1, 1, 1.5, 1.5]
    margins = np.array([logit(each) for each in chances])
    assert seven_steps(margins).tolist() == golden
    assert seven_steps(-margins).tolist() == [-each for each in golden]
    assert len(set(seven_steps(np.linspace(-9, 9, 999)).tolist())) == 7
    assert seven_steps(margins, (0.5, 0.6, 0.7)).tolist() == [0, 0.5, 1, 1.5, 1.5, 1.5, 1.5, 1.5]
    assert seven_steps(np.array([-1e9, 1e9])).tolist() == [-1.5, 1.5]


def test_the_score_is_the_mean_step() -> None:
    margins = np.array([[logit(0.97)], [logit(0.9)], [-logit(0.7)], [0.0]])
    match = match_by_scores(margins, np.zeros_like(margins))
    assert match.score.value == (1.5 + 1 - 0.5 + 0) / 4
    assert match.win_rate.value == (1 + 1 + 0 + 0.5) / 4


@pytest.mark.parametrize("thresholds", [(0.6, 0.8), (0.8, 0.6, 0.95), (0.4, 0.6, 0.8), (0.6, 0.8, 1.0), (0.6, 0.6, 0.8)])
def test_thresholds_that_make_no_scale_are_refused(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=r"three rising probabilities from 0\.5 to below 1"):
        seven_steps(np.zeros(1), thresholds)


def test_other_mistakes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"found shapes \(2, 1\) and \(2, 2\)"):
        match_by_scores(np.zeros((2, 1)), np.zeros((2, 2)))
    with pytest.raises(UsageError, match="expected 0 or more, found -1"):
        match_by_scores(np.zeros((2, 1)), np.zeros((2, 1)), -1)


def test_every_prompt_counts_the_same_and_those_without_a_verdict_do_not() -> None:
    nan = math.nan
    match = Match(np.array([[1, nan], [0, 0], [nan, nan]]), np.array([[1.5, nan], [-0.5, -1], [nan, nan]]))
    assert (match.wins, match.ties, match.losses) == (1, 0, 2)
    assert match.win_rate.value == 0.5
    assert match.score.value == (1.5 - 0.75) / 2
    nothing = np.full((1, 1), nan)
    with pytest.raises(UsageError, match="at least one verdict"):
        _ = Match(nothing, nothing).win_rate


def test_consistency_counts_only_what_was_asked() -> None:
    ties = np.full((1, 3), 0.5)
    assert Match(ties, ties, np.array([[1, 0, math.nan]])).consistency == 0.5
    assert Match(ties, ties, np.full((1, 3), math.nan)).consistency is None
