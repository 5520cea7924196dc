from __future__ import annotations

import pytest

from tests.unit.evidence.claims.declared import missing
from tests.unit.evidence.claims.lines import line, values
from warmkit.evidence.claims.hacking import Settings, measure, rises_and_falls
from warmkit.evidence.testbed.bed import Testbed


@pytest.mark.parametrize(
    ("gold", "hacked"),
    [([1.0, 2.0, 0.0], True), ([1.0, 2.0, 1.95], False), ([1.0, 1.05, 0.0], False), ([2.0, 1.0, 0.0], False)],
)
def test_a_run_is_hacked_where_gold_rises_and_then_falls(gold: list[float], hacked: bool) -> None:
    assert rises_and_falls([{"gold": each} for each in gold]) == hacked


def test_all_runs_start_at_the_sft_model_and_the_mean_is_stated(tiny_bed: Testbed) -> None:
    found = measure(tiny_bed, Settings(singles=2))
    runs = [line(found, "training", name) for name in ("single 1", "single 2", "the oracle")]
    assert all([point["at"] for point in run] == [0, 1, 4] for run in runs)
    assert all(run[0]["kl"] == pytest.approx(0, abs=1e-6) and run[0]["proxy"] == pytest.approx(0, abs=1e-6) for run in runs)
    assert len({run[0]["gold"] for run in runs}) == 1
    assert len(values(found, "training", "single models", "gold")) == 6
    assert missing(found, "hacking") == []
    ends = [run[-1]["gold"] - run[0]["gold"] for run in runs]
    assert found.numbers["end_minus_start"] == pytest.approx(sum(ends[:2]) / 2)
    assert found.numbers["oracle_end_minus_start"] == pytest.approx(ends[2])


def test_the_proxy_of_the_oracle_is_gold_in_other_units(tiny_bed: Testbed) -> None:
    points = line(measure(tiny_bed, Settings(singles=2)), "training", "the oracle")
    factors = [(point["gold"] - points[0]["gold"]) / point["proxy"] for point in points[1:] if point["proxy"]]
    assert factors == pytest.approx([factors[0]] * len(factors), rel=1e-3)
