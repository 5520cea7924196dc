"""The claim about swapped labels, on a testbed of seconds."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.unit.evidence.claims.lines import values
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.warm_corruption import SUBSETS, Settings, measure
from warmkit.evidence.testbed.bed import Testbed


@pytest.fixture(scope="module")
def found(tiny_bed: Testbed) -> Measurements:
    return measure(tiny_bed, Settings(models=3, judged=2, pairs=40, steps=10, batch_size=4, lambdas=[0.0, 0.5, 1.0]))


@pytest.mark.parametrize("data", SUBSETS)
def test_the_average_of_two_is_the_middle_of_lambda(found: Measurements, data: str) -> None:
    for method in ("WA", "ENS"):
        assert values(found, "lambda", method, data)[1] == values(found, "count", method, data)[1]


@pytest.mark.parametrize("data", SUBSETS)
def test_a_single_model_is_its_own_average(found: Measurements, data: str) -> None:
    assert values(found, "count", "WA", data)[0] == values(found, "count", "ENS", data)[0]


def test_every_pair_of_models_is_in_the_histogram_once_a_data_set(found: Measurements, tiny_bed: Testbed) -> None:
    pairs = [point for point in found.points if point["part"] == "pairs"]
    assert Counter(point["line"] for point in pairs) == dict.fromkeys(SUBSETS.values(), 3)
    assert len({point["at"] for point in pairs}) == 3
    assert all(f"seed {tiny_bed.seed}," in point["at"] for point in pairs)


def test_what_is_stated_is_what_is_drawn_at_the_count_that_is_judged(found: Measurements) -> None:
    wa, ens = (values(found, "count", method, "train_corrupt")[1] for method in ("WA", "ENS"))
    assert found.numbers["memorised_ens_minus_wa"] == pytest.approx(ens - wa)
