from __future__ import annotations

from typing import Any

import pytest

from warmkit.evidence.claims.warp_angles import Settings, gap_numbers, layer_numbers, measure, rank_correlation
from warmkit.evidence.reproduction.claim_recipe import read_claim
from warmkit.evidence.testbed.bed import Testbed

Points = list[dict[str, Any]]


def test_layers_count_by_their_parameters() -> None:
    names = ("parameters", "task_vector_angle", "weight_angle", "task_vector_norm_ratio", "weight_norm_ratio")
    points: Points = [dict(zip(names, row)) for row in ((30, 60.0, 4.0, 2.0, 1.0), (10, 100.0, 8.0, 0.5, 0.5))]
    assert layer_numbers(points) == {
        "task_vector_angle": 70,
        "task_vector_angle_minus_90": -20,
        "weight_angle": 5,
        "longer_task_vector": 1,
        "longer_weights": 0.25,
    }


def test_ranks_say_how_a_gap_grows() -> None:
    assert rank_correlation([10, 20, 90], [1, 2, 100]) == pytest.approx(1)
    assert rank_correlation([10, 20, 90], [3, 2, 1]) == pytest.approx(-1)
    rows = zip((10, 20, 30), (1, 2, 3), (3, 2, 1), (1, 3, 2))
    points: Points = [dict(zip(("angle", "gap", "relative_gap", "relative_kl_gap"), row)) for row in rows]
    assert gap_numbers(points) == pytest.approx({"gap_over_angle": 1, "relative_gap_over_angle": -1, "kl_gap_over_angle": 0.5})


def test_policies_of_a_tiny_testbed_are_compared_pair_by_pair(tiny_bed: Testbed) -> None:
    found = measure(tiny_bed, Settings(policies=3, early=1, batch_sizes=[1], lr=[5e-4]))
    gaps = {point["at"].removeprefix("seed 0, "): point for point in found.points if point["part"] == "gaps"}
    assert list(gaps) == ["1 and 2", "2 and 3", "step 1", "lr 0.0005", "batch 1"]
    assert gaps["lr 0.0005"]["angle"] < gaps["1 and 2"]["angle"]  # the same prompts and samples at first
    layers = [point for point in found.points if point["part"] == "layers"]
    assert len({point["at"] for point in layers}) == len(layers)
    assert len(layers) % 3 == 0  # three pairs in every layer
    assert {each.number for each in read_claim("warp-angles").statements} <= found.numbers.keys()
    assert 0 < (found.numbers["weight_angle"] or 0) < (found.numbers["task_vector_angle"] or 0) < 180
