"""Completions of prompts with everything that is known about each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.common.whole_files import write_rows
from warmkit.evaluation.accuracy import Estimate, interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """K completions of each of N prompts.

    Attributes:
        prompts: Texts, [N].
        texts: Of the completions, [N][K].
        values: Numbers about each, [N, K], by name: see `policy_evaluator.rollout_values`.
    """

    prompts: list[str]
    texts: list[list[str]]
    values: dict[str, Array]

    @property
    def samples(self) -> int:
        """Completions of every prompt, K."""
        return self.values["reward"].shape[1]

    def means(self) -> dict[str, float]:
        """Return `means` of the numbers."""
        return means(self.values)

    def estimate(self, name: str) -> Estimate:
        """Return the mean of one number and its bootstrap interval over prompts."""
        return interval(self.values[name].mean(1))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for every completion: `prompt`, `completion` and its numbers."""
        for n, prompt in enumerate(self.prompts):
            for k, text in enumerate(self.texts[n]):
                numbers = {name: float(each[n, k]) for name, each in self.values.items()}
                yield {"prompt": prompt, "completion": text, **numbers}

    def write(self, path: Path) -> None:
        """Write the rows as JSON lines."""
        write_rows(path, self.rows())


def means(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean of every number over completions, the entropy over tokens, and the deviation of the reward.

    Args:
        values: Arrays or tensors of one shape, by name: see `policy_evaluator.rollout_values`.
    """
    arrays = {name: np.asarray(each, dtype=np.float64) for name, each in values.items()}
    reward = arrays.pop("reward")
    result = {"reward": float(reward.mean())}
    if reward.size > 1:
        result["reward_std"] = 0.0 if (reward == reward.flat[0]).all() else float(reward.std(ddof=1))
    result |= {name: float(each.mean()) for name, each in arrays.items()}
    return {**result, "entropy": float(arrays["entropy"].sum() / arrays["length"].sum())}
