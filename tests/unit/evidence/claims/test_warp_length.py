"""Lengths with and without a penalty."""

from __future__ import annotations

import pytest

from tests.unit.evidence.claims.lines import line, values
from warmkit.evidence.claims.warp_length import Settings, between, measure
from warmkit.evidence.testbed.bed import Testbed


@pytest.mark.parametrize(
    ("lengths", "inside"),
    [((10.0, 8.0, 4.0), 2.0), ((4.0, 5.0, 10.0), 1.0), ((10.0, 11.0, 4.0), -1.0), ((10.0, 3.0, 4.0), -1.0)],
)
def test_between_is_the_distance_to_the_nearer_end(lengths: tuple[float, float, float], inside: float) -> None:
    assert between(*lengths) == inside


def test_ends_of_sweeps_are_the_policies(tiny_bed: Testbed) -> None:
    found = measure(tiny_bed, Settings(penalty=0.5, iterations=2, lambdas=[0.0, 0.5, 1.0], etas=[0.0, 1.0]))
    free, twin, short = (
        values(found, "trajectories", name, "kl") for name in ("no penalty, 1", "no penalty, 2", "length penalty")
    )
    assert free[0] == twin[0] == short[0] == pytest.approx(0, abs=1e-6)
    arc = values(found, "lambda", "SLERP", "kl")
    assert [arc[0], arc[-1]] == pytest.approx([free[-1], short[-1]], abs=1e-6)
    assert twin[-1] != pytest.approx(short[-1], abs=1e-6)  # the penalty is all that differs
    assert values(found, "fronts", "no penalty and length penalty", "kl") == pytest.approx([0, arc[1]], abs=1e-6)
    assert line(found, "iterations", "iteration 1")[-1]["kl"] == line(found, "fronts", "no penalty and no penalty")[-1]["kl"]
    assert line(found, "iterations", "iteration 2")[0]["kl"] > 0


def test_what_ending_responses_need_is_made_inside_and_counted_with_the_rest(tiny_bed: Testbed) -> None:
    bed = tiny_bed.with_ending()
    assert bed.sft.is_relative_to(tiny_bed.folder / "ending")
    assert tiny_bed.products.used["ending/sft"] > 0
    assert not bed.products.used
    assert bed.longest == tiny_bed.longest + 1
