"""The claim about eta between iterations, on a testbed of seconds."""

from __future__ import annotations

import pytest

from tests.unit.evidence.claims.declared import missing
from tests.unit.evidence.claims.lines import line, values
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.warp_eta import Settings, measure
from warmkit.evidence.testbed.bed import Testbed

RATES = (0.1, 0.3, 1.0)


@pytest.fixture(scope="module")
def found(tiny_bed: Testbed) -> Measurements:
    return measure(tiny_bed, Settings(others=[0.1, 1.0], etas=[0.0, 0.1, 0.3, 1.0]))


def test_the_numbers_that_the_recipe_names_are_measured(found: Measurements) -> None:
    assert [each for each in missing(found, "warp-eta") if not each.startswith("warp-eta-gain")] == []  # too short to overlap


def test_every_second_iteration_starts_where_the_first_iterations_front_has_its_eta(found: Measurements) -> None:
    first = {point["at"]: point["kl"] for point in line(found, "fronts", "iteration 1")}
    for rate in RATES:
        assert values(found, "fronts", f"iteration 2 from eta {rate:g}", "kl")[0] == pytest.approx(first[rate], abs=1e-6)


def test_the_reach_is_the_end_of_each_front(found: Measurements) -> None:
    ends = values(found, "reach", "merge of iteration 2", "kl")
    assert ends == [values(found, "fronts", f"iteration 2 from eta {rate:g}", "kl")[-1] for rate in RATES]
    assert found.numbers["kl_of_most_minus_least"] == pytest.approx(ends[-1] - ends[0])
