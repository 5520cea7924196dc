"""The claim about which models to average, on a testbed of seconds."""

from __future__ import annotations

import pytest

from tests.unit.reproduction.claims.lines import HELD_OUT, line, values
from warmkit.reproduction.claims.warm_ranking import Settings, measure
from warmkit.reproduction.measurements import Measurements
from warmkit.testbed.bed import Testbed


@pytest.fixture(scope="module")
def found(tiny_bed: Testbed) -> Measurements:
    return measure(tiny_bed, Settings(models=3, orders=2, runs=2))


@pytest.mark.parametrize("data", HELD_OUT)
def test_all_models_have_one_average_in_whatever_order(found: Measurements, data: str) -> None:
    orders = ("best first", "best first, ranked on OOD", "random order")
    assert len({values(found, "count", order, data)[-1] for order in orders}) == 1


def test_the_first_of_a_ranking_is_best_where_it_was_ranked(found: Measurements) -> None:
    first = {order: line(found, "count", order)[0] for order in ("best first", "best first, ranked on OOD", "random order")}
    assert first["best first"]["validation"] >= first["random order"]["validation"]
    assert first["best first, ranked on OOD"]["ood"] >= first["random order"]["ood"]


def test_a_greedy_soup_is_never_worse_on_validation_than_the_best_model(found: Measurements) -> None:
    greedy = values(found, "count", "greedy", "validation")
    assert greedy == sorted(greedy)
    assert greedy[0] == values(found, "count", "best first", "validation")[0]


def test_moving_averages_are_stated_as_drawn(found: Measurements) -> None:
    drawn = {
        name: dict(zip(HELD_OUT, values(found, "moving", name, "accuracy"))) for name in ("moving average", "WA of two runs")
    }
    gap = drawn["WA of two runs"]["ood"] - drawn["moving average"]["ood"]
    assert found.numbers["two_runs_minus_moving_ood"] == pytest.approx(gap)
