"""What the demo says follows from its numbers, whichever way they fall."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.evidence.made_up import demo_document
from warmkit.evidence.demo.demo_conclusions import merge_gain, of_memory, of_policies, of_reward_models

MEMBERS = "WARM, mean of the members"
MOVED = "Without its anchor policy 1 goes 18.9 nats away instead of 2.8"
ABOVE, BELOW, SAME = (0.016, 0.009, 0.023), (-0.016, -0.023, -0.009), (0.004, -0.003, 0.011)


@pytest.mark.parametrize(
    ("key", "found", "said"),
    [
        (MEMBERS, ABOVE, "Averaging gained 1.6 points over the mean of its members (0.820 against 0.804)."),
        (MEMBERS, BELOW, "Averaging lost 1.6 points against the mean of its members (0.820"),
        (MEMBERS, SAME, "Averaging made no difference to the mean of its members that 1936 pairs can show (0.820"),
        ("WARM, best single", ABOVE, "WARM is 1.6 points above the best single model (run-3, chosen on other pairs, 0.800)."),
        ("WARM, best single", BELOW, "WARM is 1.6 points below the best single model (run-3"),
        ("WARM, best single", SAME, "WARM is not told apart from the best single model (run-3"),
        ("ensemble, WARM", ABOVE, "The ensemble of the same three is 1.6 points above WARM (0.816), at three times the cost."),
        ("ensemble, WARM", BELOW, "The ensemble of the same three is 1.6 points below WARM (0.816), at three times the cost."),
        ("ensemble, WARM", SAME, "The ensemble of the same three is not told apart from WARM (0.816), at three times"),
        ("ensemble of all, WARM", ABOVE, "The ensemble of all six is 1.6 points above WARM (0.830), at six times the cost."),
        ("ensemble of all, WARM", BELOW, "The ensemble of all six is 1.6 points below WARM (0.830), at six times the cost."),
        ("ensemble of all, WARM", SAME, "The ensemble of all six is not told apart from WARM (0.830), at six times the cost."),
        ("WARM, probe only", ABOVE, "WARM is 1.6 points above the probe (0.822): fine-tuning taught what"),
        ("WARM, probe only", BELOW, "WARM is 1.6 points below the probe (0.822), which was never fine-tuned: here"),
        ("WARM, probe only", SAME, "WARM is no better than the probe (0.822), which was never fine-tuned: at this size"),
    ],
)  # fmt: skip
def test_reward_models(key: str, found: tuple[float, float, float], said: str) -> None:
    document = demo_document()
    document["differences"][key] = dict(zip(("value", "low", "high"), found))
    assert said in of_reward_models(document)


def test_an_interval_that_touches_zero_is_no_difference() -> None:
    document = demo_document()
    document["differences"]["WARM, probe only"] = {"value": 0.01, "low": 0.0, "high": 0.02}
    assert "WARM is no better than the probe" in of_reward_models(document)


@pytest.mark.parametrize(
    ("key", "found", "said"),
    [
        ("train corrupt", BELOW, "WARM keeps 1.6 points less of what was learned by heart than the ensemble does."),
        ("train corrupt", ABOVE, "WARM keeps 1.6 points more of what was learned by heart than the ensemble does."),
        ("train corrupt", SAME, "how much of it WARM and the ensemble keep is not told apart on 100 swapped pairs."),
        ("validation", ABOVE, "On other pairs WARM is 1.6 points more accurate than the ensemble (0.730 and 0.696)."),
        ("validation", BELOW, "On other pairs WARM is 1.6 points less accurate than the ensemble (0.730 and 0.696)."),
        ("validation", SAME, "On other pairs WARM and the ensemble are not told apart (0.730 and 0.696)."),
    ],
)
def test_memory(key: str, found: tuple[float, float, float], said: str) -> None:
    document = demo_document()
    document["memorised_differences"][key] = dict(zip(("value", "low", "high"), found))
    told = of_memory(document)
    assert said in told
    assert "The models repeat 0.865 of the swapped labels in the mean, their ensemble 0.970 and WARM 0.540: " in told


def shifted(document: dict[str, Any], gold: float) -> dict[str, Any]:
    """Add to the gold reward of every prompt along the front."""
    for point in document["points"]:
        if point["line"] == "SLERP and LITI":
            point["golds"] = [each + gold for each in point["golds"]]
    return document


def test_the_front_is_read_at_the_kl_of_the_two_policies() -> None:
    gain = merge_gain(demo_document())
    assert (gain.kl, gain.at_kl) == (2.75, True)  # halfway between eta 0.8 at 2.5 nats and the merge at 3 nats
    assert gain.gold == pytest.approx(1.2)
    assert gain.difference.value == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (0.0, "1.20: 0.10 above their mean (1.10; 95% over prompts: +0.05 to +0.15)."),
        (-0.2, "1.00: 0.10 below their mean (1.10; 95% over prompts: -0.15 to -0.05)."),
        (-0.09, "1.11: not told apart from their mean (1.10; 95% over prompts: -0.04 to +0.06)."),
    ],
)
def test_the_merge(shift: float, said: str) -> None:
    begins = "At the KL of the two policies (2.8 nats in the mean) the front has a gold reward of "
    assert of_policies(shifted(demo_document(), shift)).startswith(begins + said)


def test_a_front_that_ends_before_the_policies_is_told_by_its_merge() -> None:
    document = demo_document()
    for row in document["policies"][1:3]:
        row["kl"] = 9.0
    told = of_policies(document)
    assert "SLERP has a gold reward of 1.30 at 3.0 nats, its two policies are at 9.0: 0.20 above their mean (1.10;" in told
    assert merge_gain(document).at_kl is False


def test_liti_is_told_by_what_it_keeps() -> None:
    document = demo_document()
    assert "LITI 0.3 keeps 50% of what SLERP gained, at 20% of its KL." in of_policies(document)


@pytest.mark.parametrize(
    ("golds", "said"),
    [
        ([0.1, 0.12], "SLERP's gold reward is below the SFT model's (0.11 and 0.30); LITI 0.3 has 0.80, at 20% of its KL."),
        ([0.5, 0.12], "SLERP's gold reward is not told apart from the SFT model's (0.31 and 0.30); LITI 0.3 has 0.80, at 20%"),
    ],
)
def test_a_share_of_a_gain_that_may_be_none_is_not_told(golds: list[float], said: str) -> None:
    document = demo_document()
    slerp = document["policies"][4]
    slerp["golds"] = golds * (len(slerp["golds"]) // 2)
    slerp["gold"] = sum(golds) / 2
    assert said in of_policies(document)


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        (
            -1.4,
            ": its reward rises by 1.32, its gold reward falls from 0.30 to -1.40 (its best was 1.00, at step 20). It hacked",
        ),
        (0.9, ", for a gold reward of 0.90 instead of 1.10 (its best was 1.00, at step 20)."),
        (1.2, ", for a gold reward of 1.20 instead of 1.10: nothing was hacked here."),
    ],
)
def test_the_policy_without_an_anchor(gold: float, said: str) -> None:
    document = demo_document()
    document["policies"][3]["gold"] = document["points"][-1]["gold"] = gold
    assert MOVED + said in of_policies(document)
