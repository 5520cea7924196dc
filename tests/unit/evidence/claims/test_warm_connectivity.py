"""The claim about linear mode connectivity, on a testbed of seconds."""

from __future__ import annotations

import pytest

from tests.unit.evidence.claims.lines import HELD_OUT, line, values
from warmkit.evidence.claims.measurements import Measurements
from warmkit.evidence.claims.warm_connectivity import SOURCES, Settings, checkpoints, measure, order_runs
from warmkit.evidence.testbed.bed import Testbed


@pytest.fixture(scope="module")
def found(tiny_bed: Testbed) -> Measurements:
    return measure(tiny_bed, Settings(pairs=1, models=2, lambdas=[0.0, 0.5, 1.0]))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("data", HELD_OUT)
def test_at_the_ends_of_lambda_lie_the_models_themselves(found: Measurements, source: str, data: str) -> None:
    ends = [[values(found, source, each, data)[place] for each in ("WA", "ENS", "Diag")] for place in (0, -1)]
    assert [len({*each}) for each in ends] == [1, 1]
    assert [values(found, "gain", source, data)[place] for place in (0, -1)] == [0, 0]


def test_the_diagonal_is_straight(found: Measurements) -> None:
    first, middle, last = values(found, "order", "Diag", "ood")
    assert middle == pytest.approx((first + last) / 2)


def test_pairs_of_two_runs_begin_with_the_same_model_that_the_pair_of_checkpoints_ends_with(found: Measurements) -> None:
    assert {values(found, source, "WA", "ood")[0] for source in SOURCES[1:]} == {values(found, "same run", "WA", "ood")[-1]}


def test_one_model_is_its_own_average_best_and_worst(found: Measurements) -> None:
    single = [line(found, "count", name)[0]["validation"] for name in ("WA", "ENS", "best single model", "worst single model")]
    assert len({*single}) == 1


def test_statements_are_differences_of_what_is_drawn(found: Measurements) -> None:
    gains = [values(found, "gain", source, "ood")[1] for source in SOURCES]
    assert found.numbers["wa_minus_diag_ood"] == pytest.approx(sum(gains[1:]) / 3)
    assert found.numbers["diversity_ood"] == pytest.approx(gains[-1] - gains[0])


def test_checkpoints_of_a_run_are_in_order_and_end_with_its_model(tiny_bed: Testbed) -> None:
    paths, steps = checkpoints(tiny_bed, order_runs(tiny_bed, 1), "run-1"), tiny_bed.settings.reward_models.steps
    kept = [int(path.name.removeprefix("step-")) for path in paths[:-1]]
    assert kept == sorted({*kept})
    assert steps / 2 <= kept[0] < kept[-1] <= steps
    assert paths[-1].name == "model"
