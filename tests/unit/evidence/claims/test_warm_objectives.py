"""The claim about two objectives: what the criteria say, and the rest on a testbed of seconds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.unit.evidence.claims.lines import values
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.warm_objectives import FIRST, SECONDS, Settings, kept, measure, plainness, relevance, style
from warmkit.evidence.testbed.bed import Testbed


@pytest.fixture(scope="module")
def found(tiny_bed: Testbed) -> Measurements:
    return measure(tiny_bed, Settings(pairs=1, lambdas=[0.0, 0.5, 1.0]))


def test_the_criteria_are_words_on_topic_praise_and_cues_and_the_distance_to_four_function_words() -> None:
    prompts, texts = ["sea wood :"] * 2, ["wave the of root great", "the the the a of and surely surely great"]
    assert relevance(prompts, texts) == [2, 0]
    assert style(prompts, texts) == [-2, -2]
    assert plainness(prompts, texts) == [-1, -3]


def wa(*points: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"a": first, "b": second} for first, second in points]


def test_what_is_kept_is_the_share_of_a_models_lead_on_its_own_criterion() -> None:
    assert kept(wa((80, 50), (75, 65), (60, 70)), 1, "ab") == [0.75, 0.75]


def test_nothing_can_be_kept_where_a_model_does_not_lead_on_its_own_criterion() -> None:
    assert math.isnan(kept(wa((60, 50), (75, 65), (60, 70)), 1, "ab")[0])


@pytest.mark.parametrize("part", ["one", "both"])
@pytest.mark.parametrize("second", SECONDS)
def test_at_the_ends_of_lambda_lie_the_models_themselves(found: Measurements, part: str, second: str) -> None:
    for name in (FIRST, second):
        for place in (0, -1):
            assert len({values(found, f"{part} {second}", line, name)[place] for line in ("WA", "ENS", "Diag")}) == 1
