"""The claim about diversity by dropout, on a testbed of seconds."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from tests.unit.evidence.claims.declared import missing
from tests.unit.evidence.claims.lines import HELD_OUT, values
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.warm_connectivity import order_runs
from warmkit.evidence.claims.warm_dropout import DROPOUT, ORDER, Settings, measure
from warmkit.evidence.testbed.bed import Testbed


@pytest.fixture(scope="module")
def found(tiny_bed: Testbed) -> Measurements:
    return measure(tiny_bed, Settings(pairs=1, lambdas=[0.0, 0.5, 1.0]))


def test_everything_that_the_recipe_names_is_measured(found: Measurements) -> None:
    assert missing(found, "warm-dropout") == []


@pytest.mark.parametrize("data", HELD_OUT)
def test_both_kinds_of_pairs_begin_with_one_model(found: Measurements, data: str) -> None:
    assert values(found, ORDER, "WA", data)[0] == values(found, DROPOUT, "WA", data)[0]
    gap = values(found, "gain", DROPOUT, data)[1] - values(found, "gain", ORDER, data)[1]
    assert found.numbers[f"dropout_minus_order_{data}"] == pytest.approx(gap)


def test_dropout_makes_another_model_of_the_same_order(tiny_bed: Testbed, found: Measurements) -> None:
    pool = order_runs(tiny_bed, 2)
    with_it = load_file(tiny_bed.variant(pool, "run-2", "dropout", dropout=0.1) / "model.safetensors")
    without = load_file(pool.runs["run-2"] / "model.safetensors")
    assert any(not each.equal(without[name]) for name, each in with_it.items())
