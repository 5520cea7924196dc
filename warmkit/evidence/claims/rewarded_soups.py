"""Rewarded soups: one policy for each of two rewards, interpolated, against policies trained on mixtures of both.

Source: Weight averaging for RLHF (slides of Ramé, 2024); Rewarded soups (Ramé et al., NeurIPS 2023), which they summarise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from warmkit.evaluation.reward_term import RewardTerm
from warmkit.evidence.claims.measurements import Line, Measurements
from warmkit.evidence.claims.proxies import proxy
from warmkit.evidence.testbed import oracle
from warmkit.evidence.testbed.gold_judge import Judge

if TYPE_CHECKING:
    from pathlib import Path

    from warmkit.evidence.testbed.bed import Testbed

CRITERIA = ("relevance", "fluency")
ENOUGH = 8
"""Words that count for a criterion: a response of 16 has room for both."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        lambdas: Between the policy of the first reward, 0, and that of the second, 1; with 0, 0.5 and 1.
        weights: Of the second reward in the mixtures that are trained.
    """

    lambdas: list[float] = field(default_factory=lambda: [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0])
    weights: list[float] = field(default_factory=lambda: [0.25, 0.5, 0.75])


def measure(bed: Testbed, how: Settings) -> Measurements:
    """Train a policy for each reward and for each mixture, and interpolate the first two."""
    found = Measurements()
    rewards = [_reward(bed, criterion) for criterion in CRITERIA]
    trained = {weight: _policy(bed, rewards, weight) for weight in (0.0, *how.weights, 1.0)}
    golds = [RewardTerm(name=f"gold_{each}", function=f"{__name__}:{each}") for each in CRITERIA]
    judge = Judge(bed, rewards[0], [replace(rewards[1], name=CRITERIA[1]), *golds])

    def draw(line: str, points: Sequence[Mapping[str, Any]]) -> Line:
        zero, unit = judge.sft[CRITERIA[1]], rewards[1].weight  # the judge's other rewards are raw: no weight, no zero
        both = [{CRITERIA[0]: point["proxy"], CRITERIA[1]: (point[CRITERIA[1]] - zero) * unit} for point in points]
        return found.draw("front", line, [{**point, **each, "sum": sum(each.values())} for point, each in zip(points, both)])

    ends = [trained[0.0], trained[1.0]]
    lerp, slerp = (draw(f"soups, {each.upper()}", judge.slide(ends, how.lambdas, bed.sft, each)) for each in ("lerp", "slerp"))
    costly = draw(
        "trained on mixtures",
        [{"at": each, **judge.measure(load_file(trained[each] / "model.safetensors"))} for each in how.weights],
    )
    draw("SFT model", [{"at": 0.0, **judge.sft}])
    found.draw("front", "straight line", [lerp[0], lerp[-1]])
    found.state(
        lerp_middle_above_line=above_line(lerp, CRITERIA),
        slerp_middle_above_line=above_line(slerp, CRITERIA),
        middle_above_line_gold=above_line(lerp, [f"gold_{each}" for each in CRITERIA]),
        share_of_mixtures=share(lerp, costly),
    )
    return found


def relevance(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Count the words on topic, no more than 8: the first criterion."""
    return [min(count, ENOUGH) for count in oracle.relevant_words(prompts, completions)]


def fluency(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Count the function words, no more than 8: the second criterion."""
    return [min(count, ENOUGH) for count in oracle.function_words(prompts, completions)]


GOLD = {"relevance": relevance, "fluency": fluency}


def above_line(front: Line, rewards: Sequence[str], middle: float = 0.5) -> float:
    """Return how far the middle of a front is above the straight line between its ends: u_1 + u_2 - 1.

        u_i = (r_i - lowest r_i of the ends) / (difference of the ends in r_i)

    so that the line is u_1 + u_2 = 1; NaN where a policy is no better in its own reward than the other policy.

    Args:
        front: From the policy of the first reward to that of the second.
        rewards: Names of both.
        middle: The `at` of the middle.

    Example:
        >>> points = [(0.0, 2.0, 0.0), (0.5, 1.5, 3.0), (1.0, 0.0, 4.0)]
        >>> above_line([{"at": at, "a": a, "b": b} for at, a, b in points], ["a", "b"])
        0.5
    """
    first, last = front[0], front[-1]
    point = next(point for point in front if point["at"] == middle)
    total = -1.0
    for reward, own, other in ((rewards[0], first, last), (rewards[1], last, first)):
        if own[reward] <= other[reward]:
            return float("nan")
        total += (point[reward] - other[reward]) / (own[reward] - other[reward])
    return total


def share(front: Line, costly: Line) -> float:
    """Return what part of the mixtures' gain soups have, by the mixtures' own rewards.

        sum over w of max over lambda of (1 - w) r_1 + w r_2, over the sum of the same of the policies trained on the mixtures w

    Rewards are counted from the SFT model. NaN where the mixtures gained nothing.

    Example:
        >>> soups = [{"relevance": 4.0, "fluency": 0.0}, {"relevance": 0.0, "fluency": 2.0}]
        >>> share(soups, [{"at": 0.25, "relevance": 4.0, "fluency": 4.0}])
        0.75
    """
    best = sum(max(mixed(soup, point["at"]) for soup in front) for point in costly)
    gain = sum(mixed(point, point["at"]) for point in costly)
    return best / gain if gain > 0 else float("nan")


def mixed(point: Mapping[str, Any], weight: float) -> float:
    """Return (1 - w) r_1 + w r_2."""
    return (1 - weight) * point[CRITERIA[0]] + weight * point[CRITERIA[1]]


def _reward(bed: Testbed, criterion: str) -> RewardTerm:
    """Train a reward model on preferences labelled by one criterion; every swapped label of the testbed is swapped here too."""
    train = bed.preferences(f"train-{criterion}", bed.settings.reward_models.pairs, GOLD[criterion])
    return proxy(bed, bed.pool(f"criterion-{criterion}", 1, train=train).paths)


def _policy(bed: Testbed, rewards: Sequence[RewardTerm], weight: float) -> Path:
    """Train on (1 - w) r_1 + w r_2; at the ends on one reward alone."""
    terms = [
        replace(reward, name=name, weight=reward.weight * part)
        for reward, name, part in zip(rewards, CRITERIA, (1 - weight, weight))
        if part
    ]
    return bed.policy(f"rewards-{weight:g}", terms, bed.settings.warp_policies).path
