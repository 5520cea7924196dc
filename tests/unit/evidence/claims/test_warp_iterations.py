"""Iterations of WARP: what starts where, and costs what."""

from __future__ import annotations

import pytest

from tests.unit.evidence.claims.lines import line, values
from warmkit.evidence.claims.warp_iterations import Settings, measure
from warmkit.evidence.testbed.bed import Testbed


def test_iterations_start_between_the_init_and_the_merge_of_the_one_before(tiny_bed: Testbed) -> None:
    found = measure(tiny_bed, Settings(iterations=2, etas=[0.0, 0.3, 1.0]))
    first, second = (values(found, "fronts", f"iteration {number}", "kl") for number in (1, 2))
    assert first[0] == pytest.approx(0, abs=1e-6)
    assert second[0] == pytest.approx(first[1], abs=1e-6)
    assert values(found, "fronts", "iteration 1, towards SFT", "kl") == pytest.approx(first, abs=1e-6)
    to_sft = values(found, "fronts", "iteration 2, towards SFT", "kl")
    assert [to_sft[0], to_sft[-1]] == pytest.approx([0, second[-1]], abs=1e-6)
    assert values(found, "fronts", "iteration 2, run 1", "kl")[0] == second[0]

    steps = tiny_bed.settings.warp_policies.steps
    for number in (1, 2):
        places = values(found, "steps", f"WARP, run {number}", "at")
        assert places == sorted(set(places))
        assert places[-1] == 2 * steps
    assert values(found, "steps", "one long run", "at")[-1] == 2 * 2 * steps
    assert line(found, "fronts", "LITI of the long run")[-1]["kl"] == pytest.approx(
        line(found, "fronts", "one long run")[-1]["kl"], abs=1e-6
    )
    assert found.numbers["third_minus_second_proxy"] is None
    assert found.numbers["reach_of_last_minus_first_proxy"] == pytest.approx(
        line(found, "fronts", "iteration 2")[-1]["proxy"] - line(found, "fronts", "iteration 1")[-1]["proxy"]
    )
