from __future__ import annotations

import numpy as np
import pytest

from tests.unit.evidence.claims.declared import missing
from tests.unit.evidence.claims.lines import line, values
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.picked_answers import chance_to_win, choices, worth
from warmkit.evidence.claims.warm_best_of_n import Settings, measure, samples
from warmkit.evidence.testbed.bed import Testbed

ALL = ("single models", "best single (validation)", "probe only", "WA M=2", "WA M=3", "ENS M=2", "ENS M=3", "the oracle")


@pytest.fixture(scope="module")
def found(tiny_bed: Testbed) -> Measurements:
    return measure(tiny_bed, Settings(samples=8, sizes=[1, 2, 8], members=[2, 3]))


def test_best_of_one_is_any_and_best_of_all_the_best() -> None:
    scores = np.array([[0.0, 3.0, 1.0], [5.0, 4.0, 3.0]])
    chosen = choices({"a": [scores]}, [1, 3])["a"]
    np.testing.assert_allclose(chosen[1], 1 / 3)
    np.testing.assert_allclose(chosen[3], [[0, 1, 0], [1, 0, 0]], atol=1e-12)


def test_several_choosers_of_a_line_are_worth_their_mean() -> None:
    scores, judged = np.array([[0.0, 3.0]]), np.array([[1.0, 5.0]])
    chosen = choices({"a": [scores, -scores], "b": [scores]}, [2])
    assert worth(chosen["a"][2], judged) == 3
    assert worth(chosen["b"][2], judged) == 5


def test_win_rates_of_two_choosers_add_up_to_one() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.dirichlet(np.ones(4), size=3), draw.dirichlet(np.ones(4), size=3)
    judged = draw.integers(3, size=(3, 4)).astype(float)
    assert chance_to_win(a, b, judged) + chance_to_win(b, a, judged) == pytest.approx(1)
    assert chance_to_win(a, a, judged) == pytest.approx(0.5)


@pytest.mark.parametrize("part", ["flips", "clean"])
def test_all_start_at_the_same_and_none_is_above_the_oracle(found: Measurements, part: str) -> None:
    ceiling = values(found, part, "the oracle", "gold")
    for name in ALL:
        points = line(found, part, name)
        assert [each["at"] for each in points] == [1, 2, 8]
        assert points[0]["gold"] == pytest.approx(ceiling[0])
        assert points[0]["win_sft"] == pytest.approx(50)
        assert all(each["gold"] <= top + 1e-9 for each, top in zip(points, ceiling))


def test_leads_are_over_the_best_single_model_and_wins_over_warm(found: Measurements) -> None:
    assert set(values(found, "flips", "best single (validation)", "lead")) == {0.0}
    assert values(found, "flips", "WA M=3", "win_warm") == pytest.approx([50, 50, 50])
    last = line(found, "clean", "WA M=3")[-1]
    assert found.numbers["clean_warm_minus_best_single"] == pytest.approx(last["lead"])


def test_samples_are_drawn_once(tiny_bed: Testbed) -> None:
    first = samples(tiny_bed, 8)
    assert (len(first.prompts), first.samples) == (16, 8)
    assert samples(tiny_bed, 8).texts == first.texts


def test_all_that_the_recipe_names_is_measured(found: Measurements) -> None:
    assert missing(found, "warm-best-of-n") == []
