"""The claim about which models to average, on a testbed of seconds."""

from __future__ import annotations

import pytest

from tests.unit.evidence.claims.lines import HELD_OUT, values
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.warm_ranking import Settings, divided, measure, ranking
from warmkit.evidence.testbed.bed import Testbed
from warmkit.pipelines.warm_choice import accuracy


@pytest.fixture(scope="module")
def found(tiny_bed: Testbed) -> Measurements:
    return measure(tiny_bed, Settings(models=3, orders=2, runs=2))


@pytest.mark.parametrize("data", HELD_OUT)
def test_all_models_have_one_average_in_whatever_order(found: Measurements, data: str) -> None:
    orders = ("best first", "best first, ranked on OOD", "random order")
    assert len({values(found, "count", order, data)[-1] for order in orders}) == 1


def test_what_chooses_is_not_what_measures(tiny_bed: Testbed) -> None:
    contest = tiny_bed.contest(tiny_bed.pool("flips", 3), only=HELD_OUT)
    for data in HELD_OUT:
        choosing, measuring = ({(p.prompt, p.chosen, p.rejected) for p in each.data[data].pairs} for each in divided(contest))
        assert choosing.isdisjoint(measuring)
        assert choosing | measuring == {(p.prompt, p.chosen, p.rejected) for p in contest.data[data].pairs}


def test_the_first_of_a_ranking_is_best_where_it_was_ranked(tiny_bed: Testbed) -> None:
    pool = tiny_bed.pool("flips", 3)
    choosing, _ = divided(tiny_bed.contest(pool, only=HELD_OUT))
    for data in HELD_OUT:
        ranked = ranking(choosing, list(pool.runs), data)
        values = [accuracy(choosing, [name], data) for name in ranked]
        assert values == sorted(values, reverse=True)


def test_a_greedy_soup_of_one_is_the_best_model(found: Measurements) -> None:
    for data in HELD_OUT:
        assert values(found, "count", "greedy", data)[0] == values(found, "count", "best first", data)[0]


def test_moving_averages_are_stated_as_drawn(found: Measurements) -> None:
    drawn = {
        name: dict(zip(HELD_OUT, values(found, "moving", name, "accuracy"))) for name in ("moving average", "WA of two runs")
    }
    gap = drawn["WA of two runs"]["ood"] - drawn["moving average"]["ood"]
    assert found.numbers["two_runs_minus_moving_ood"] == pytest.approx(gap)
