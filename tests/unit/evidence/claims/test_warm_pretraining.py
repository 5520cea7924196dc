"""The claim about what averaging presumes, on a testbed of seconds."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from tests.unit.evidence.claims.declared import missing
from tests.unit.evidence.claims.lines import HELD_OUT, values
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.warm_connectivity import order_runs
from warmkit.evidence.claims.warm_pretraining import APART, PROBED, RANDOM, Settings, measure, random_head
from warmkit.evidence.testbed.bed import Testbed


@pytest.fixture(scope="module")
def found(tiny_bed: Testbed) -> Measurements:
    return measure(tiny_bed, Settings(pairs=1, lambdas=[0.0, 0.5, 1.0]))


def test_everything_that_the_recipe_names_is_measured(found: Measurements) -> None:
    assert missing(found, "warm-pretraining") == []


@pytest.mark.parametrize("data", HELD_OUT)
def test_the_first_model_of_one_and_of_two_pre_trainings_is_the_same(found: Measurements, data: str) -> None:
    assert values(found, PROBED, "WA", data)[0] == values(found, APART, "WA", data)[0]


@pytest.mark.parametrize("data", HELD_OUT)
def test_statements_are_what_is_drawn_halfway(found: Measurements, data: str) -> None:
    wa, gain = ({kind: values(found, part, kind, data)[1] for kind in (PROBED, RANDOM, APART)} for part in ("WA", "gain"))
    assert found.numbers[f"probed_wa_minus_random_wa_{data}"] == pytest.approx(wa[PROBED] - wa[RANDOM])
    assert found.numbers[f"apart_wa_minus_diag_{data}"] == pytest.approx(gain[APART])
    assert found.numbers[f"shared_gain_minus_apart_gain_{data}"] == pytest.approx(gain[PROBED] - gain[APART])


def test_a_random_head_changes_the_head_alone(tiny_bed: Testbed) -> None:
    pool = order_runs(tiny_bed, 2)
    random, probed = (load_file(path / "model.safetensors") for path in (random_head(tiny_bed, pool), pool.probe))
    changed = [name for name, each in probed.items() if not each.equal(random[name])]
    assert changed == ["score.weight"]
    assert random["score.weight"].std() < 0.04
