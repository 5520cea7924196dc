"""Gain of a merge of policies over them: a policy that does not average spoils the merge without a word."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from warmkit.common.records import dict_of, having, is_natural
from warmkit.evaluation.accuracy import Array, interval
from warmkit.evaluation.few_values import is_estimate
from warmkit.evaluation.policies import Candidate
from warmkit.verbs.merger import Merger, merged_state_dict

FEW = 10
"""Prompts; the interval of a mean of fewer says little."""


GAIN = having(prompts=is_natural, rewards=dict_of(is_estimate), merge=is_estimate, gain=is_estimate)
"""What `merge_gain` returns."""


def merge_gain(candidate: Candidate, merger: Merger, policies: Mapping[str, str]) -> dict[str, Any]:
    """Evaluate every policy and their merge on the same prompts, in memory.

    Args:
        candidate: Of the policies' architecture; it keeps the weights of the last.
        merger: Of the policies.
        policies: Where they lie, by name; at least two.

    Returns:
        `rewards` (mean of every policy, with its bootstrap interval over prompts), `merge` (the same of the merge) and `gain`
        (the merge less the mean of the policies, paired over prompts), of so many `prompts`.

    Source: WARP (Ramé et al., 2024), section 3.2: the merge of policies is to have more reward than they have.
    """
    merged = _reward(candidate, merger.state_dict())
    alone = {name: _reward(candidate, merged_state_dict([path, path], method="uniform")) for name, path in policies.items()}
    return {
        "prompts": len(merged),
        "rewards": {name: dataclasses.asdict(interval(each)) for name, each in alone.items()},
        "merge": dataclasses.asdict(interval(merged)),
        "gain": dataclasses.asdict(interval(merged - sum(alone.values()) / len(alone))),
    }


def told(found: Mapping[str, Any], where: str) -> str | None:
    """Return what a user has to know: that a merge has less reward than its policies, if it has.

    Args:
        found: By `merge_gain`.
        where: The merge, such as `iteration 1`.
    """
    gain, rewards = found["gain"], found["rewards"]
    if gain["high"] >= 0 or found["prompts"] < FEW:
        return None
    worst = min(rewards, key=lambda name: rewards[name]["value"])
    return (
        f"{where}: the merge has less reward than its policies in the mean, by {-gain['value']:.3g} (95% interval over "
        f"{found['prompts']} prompts wholly below 0): they do not average. The lowest alone is {worst}, "
        f"{rewards[worst]['value']:.3g}; leave a policy out (warp.exclude), or train with a lower rate or a larger beta"
    )


def _reward(candidate: Candidate, weights: Mapping[str, Any]) -> Array:
    candidate.load_weights(weights)
    return candidate.answers().values["reward"].mean(1)
