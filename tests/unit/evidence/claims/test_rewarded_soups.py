"""Two rewards in one policy."""

from __future__ import annotations

import math

import pytest

from tests.unit.evidence.claims.lines import line, values
from warmkit.evidence.claims.rewarded_soups import CRITERIA, Settings, above_line, fluency, measure, relevance, share
from warmkit.evidence.testbed.bed import Testbed


def front(*points: tuple[float, float, float]) -> list[dict[str, float]]:
    return [{"at": at, "relevance": first, "fluency": second} for at, first, second in points]


@pytest.mark.parametrize(
    ("middle", "above"), [((1.0, 2.0), 0.0), ((2.0, 4.0), 1.0), ((1.5, 3.0), 0.5), ((0.5, 1.0), -0.5), ((2.5, 2.0), 0.75)]
)
def test_the_middle_is_measured_from_the_line_in_units_of_its_ends(middle: tuple[float, float], above: float) -> None:
    assert above_line(front((0.0, 2.0, 0.0), (0.5, *middle), (1.0, 0.0, 4.0)), CRITERIA) == pytest.approx(above)


def test_policies_that_are_not_best_in_their_own_reward_have_no_line() -> None:
    assert math.isnan(above_line(front((0.0, 2.0, 0.0), (0.5, 2.0, 2.0), (1.0, 2.0, 4.0)), CRITERIA))


def test_each_mixture_is_compared_with_the_best_soup_by_its_own_reward() -> None:
    soups = front((0.0, 4.0, 0.0), (0.5, 2.0, 2.0), (1.0, 0.0, 2.0))
    assert share(soups, front((0.25, 4.0, 4.0), (0.75, 1.0, 3.0))) == pytest.approx((3.0 + 2.0) / (4.0 + 2.5))
    assert math.isnan(share(soups, front((0.5, 0.0, 0.0))))


def test_criteria_count_up_to_eight_words() -> None:
    assert relevance(["sea wood :"] * 2, ["wave the king", "wave " * 9]) == [1, 8]
    assert fluency(["sea wood :"] * 2, ["wave the king", "the " * 9]) == [1, 8]


def test_ends_of_soups_are_the_policies_of_one_reward(tiny_bed: Testbed) -> None:
    found = measure(tiny_bed, Settings(lambdas=[0.0, 0.5, 1.0], weights=[0.5]))
    lerp, slerp, straight = (line(found, "front", name) for name in ("soups, LERP", "soups, SLERP", "straight line"))
    for column in (*CRITERIA, "kl", "gold_relevance"):
        assert [lerp[0][column], lerp[-1][column]] == [point[column] for point in straight]
        assert [slerp[0][column], slerp[-1][column]] == pytest.approx([point[column] for point in straight], abs=1e-5)
    assert values(found, "front", "SFT model", "fluency") == values(found, "front", "SFT model", "relevance") == [0]
    assert values(found, "front", "trained on mixtures", "at") == [0.5]
    assert lerp[1]["sum"] == pytest.approx(lerp[1]["relevance"] + lerp[1]["fluency"])
