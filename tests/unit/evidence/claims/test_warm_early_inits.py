"""The claim about inits taken too early, on a testbed of seconds."""

from __future__ import annotations

import pytest

from tests.unit.evidence.claims.declared import missing
from tests.unit.evidence.claims.lines import HELD_OUT, values
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.warm_early_inits import BAKLAVA, Settings, measure
from warmkit.evidence.testbed.bed import EARLY, SHARES, Testbed


@pytest.fixture(scope="module")
def found(tiny_bed: Testbed) -> Measurements:
    return measure(tiny_bed, Settings())


def test_everything_that_the_recipe_names_is_measured(found: Measurements) -> None:
    assert missing(found, "warm-early-inits") == []


def test_every_checkpoint_of_the_sft_run_is_tried_and_the_usual_inits_are_the_last(
    tiny_bed: Testbed, found: Measurements
) -> None:
    places = values(found, "share", "the model of this init", "at")
    assert places == [*EARLY, *SHARES]
    assert SHARES[0] == BAKLAVA
    assert tiny_bed.inits == [tiny_bed.trajectory[share] for share in SHARES]


@pytest.mark.parametrize("data", HELD_OUT)
def test_statements_are_differences_of_what_is_drawn(found: Measurements, data: str) -> None:
    alone = dict(zip([*EARLY, *SHARES], values(found, "share", "the model of this init", data)))
    averaged = dict(zip([*EARLY, *SHARES], values(found, "share", "WA with a model of the SFT model", data)))
    assert found.numbers[f"latest_minus_earliest_{data}"] == pytest.approx(alone[1.0] - alone[EARLY[0]])
    gap = averaged[BAKLAVA] - averaged[EARLY[0]]
    assert found.numbers[f"wa_with_baklava_minus_wa_with_earliest_{data}"] == pytest.approx(gap)
