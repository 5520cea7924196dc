"""Lines are compared at matched KL, where both are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from warmkit.evidence.claims.measurements import Measurements, at, highest, lead, over_steps


def line(*points: tuple[float, float]) -> list[dict[str, float]]:
    return [{"at": float(place), "kl": kl, "gold": gold} for place, (kl, gold) in enumerate(points)]


def test_a_line_has_no_value_beyond_its_ends() -> None:
    found = at(line((0, 1), (4, 3), (2, 4)), "gold", [-1.0, 1.0, 3.0, 5.0])
    np.testing.assert_allclose(found, [np.nan, 2.5, 3.5, np.nan])


def test_a_lead_is_the_mean_difference_over_what_both_reach() -> None:
    ours, theirs = line((0, 1), (10, 11)), line((2, 0), (4, 2), (20, 18))
    assert lead(ours, theirs, "gold") == pytest.approx(3.0)  # 1 + KL against KL - 2, from 2 to 10
    assert lead(theirs, ours, "gold") == pytest.approx(-3.0)


def test_several_lines_count_as_their_mean() -> None:
    ours, low, high = line((0, 3), (4, 3)), line((0, 0), (4, 0)), line((0, 2), (4, 2))
    assert lead(ours, [low, high], "gold") == pytest.approx(2.0)
    assert lead([low, high], ours, "gold") == pytest.approx(-2.0)


def test_lines_that_never_meet_have_no_lead_and_it_is_stated_as_missing() -> None:
    found = Measurements()
    found.state(apart=lead(line((0, 1), (1, 1)), line((2, 1), (3, 1)), "gold"), together=1.0)
    assert found.numbers == {"apart": None, "together": 1.0}


def test_points_keep_their_part_and_line() -> None:
    found = Measurements()
    drawn = found.draw("lambda", "SLERP", line((0, 1)))
    assert found.points == list(drawn) == [{"part": "lambda", "line": "SLERP", "at": 0.0, "kl": 0, "gold": 1}]


def test_the_highest_point_and_the_mean_over_steps() -> None:
    points = line((0, 0), (1, 4), (2, 2))
    assert highest(points)["at"] == 1.0
    assert over_steps(points, "gold") == pytest.approx(2.5)
    assert math.isfinite(over_steps(points, "kl"))
