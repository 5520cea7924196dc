"""A merge that is worse than the policies in it is told, and which of them is worst alone."""

from __future__ import annotations

from typing import Any

import pytest

from warmkit.evaluation.merge_gain import FEW, told


def found(low: float, high: float, prompts: int = 40) -> dict[str, Any]:
    rewards = {name: {"value": value, "low": value, "high": value} for name, value in (("run-1", 2.0), ("run-2", 1.5))}
    gain = {"value": (low + high) / 2, "low": low, "high": high}
    return {"prompts": prompts, "rewards": rewards, "merge": rewards["run-1"], "gain": gain}


def test_a_merge_with_less_reward_than_its_policies_is_told() -> None:
    note = told(found(-0.7, -0.3), "iteration 2")
    assert note is not None
    assert note.startswith("iteration 2: the merge has less reward than its policies in the mean, by 0.5 (95% interval over 40")
    assert "The lowest alone is run-2, 1.5; leave a policy out (warp.exclude)" in note


@pytest.mark.parametrize("case", [found(-0.1, 0.1), found(0.1, 0.3), found(-0.7, -0.3, FEW - 1)])
def test_nothing_is_said_where_nothing_can_be_told(case: dict[str, Any]) -> None:
    assert told(case, "iteration 1") is None
