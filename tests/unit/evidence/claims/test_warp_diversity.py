"""Similarity of generations against KL."""

from __future__ import annotations

import math

import pytest

from tests.unit.evidence.claims.lines import line, values
from warmkit.evidence.claims.warp_diversity import Settings, correlation, measure
from warmkit.evidence.testbed.bed import Testbed

pytest.importorskip("sacrebleu")


def test_correlation_is_one_on_a_rising_line_and_nothing_on_a_flat_one() -> None:
    assert correlation([{"kl": kl, "similarity": 3 * kl} for kl in (0.0, 1.0, 4.0)]) == pytest.approx(1)
    assert correlation([{"kl": kl, "similarity": -kl} for kl in (0.0, 1.0, 4.0)]) == pytest.approx(-1)
    assert math.isnan(correlation([{"kl": kl, "similarity": 2.0} for kl in (0.0, 1.0)]))


def test_liti_goes_from_the_sft_model_to_the_end_of_the_run(tiny_bed: Testbed) -> None:
    found = measure(tiny_bed, Settings(etas=[0.0, 0.5, 1.0], compared=2))
    run, liti = (line(found, "diversity", name) for name in ("RL, run 1", "LITI, M=1"))
    for end in (0, -1):
        for number in ("kl", "similarity", "entropy"):
            assert liti[end][number] == pytest.approx(run[end][number], abs=1e-5)
    assert all(0 <= each <= 100 for each in values(found, "diversity", "LITI, M=2", "similarity"))
