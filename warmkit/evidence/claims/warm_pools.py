"""Pools of WARM as claims use them: their models from best to worst, and the averages of the best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from warmkit.data.preferences import read_pairs
from warmkit.evaluation.accuracy import pairwise_accuracy
from warmkit.evaluation.comparisons import encode_pairs, score
from warmkit.evidence.testbed.bed import Pool, Testbed
from warmkit.modeling.reward_model import load_reward_model


@dataclass(frozen=True)
class Ranking:
    """A pool from best to worst.

    Attributes:
        pool: Which.
        names: Of its runs, by falling accuracy on held-out preferences.

    Source: WARM (Ramé et al., 2024), appendix C.3, where WARM of M are the M best. There they are ranked on the test set out of
        distribution, here on the validation set, which `warmkit warm` uses too.
    """

    pool: Pool
    names: list[str]

    def best(self, count: int) -> list[Path]:
        """Return the M best."""
        return [self.pool.runs[name] for name in self.names[:count]]

    def average(self, bed: Testbed, count: int) -> Path:
        """Return WA of the M best, on disk."""
        return bed.average(f"{self.pool.name}-best-{count}-of-{len(self.names)}", self.best(count))


def ranking(bed: Testbed, pool: Pool, preferences: str | None = None) -> Ranking:
    """Rank the runs of a pool.

    Args:
        bed: The testbed.
        pool: Which.
        preferences: Held out; by default the testbed's validation set.
    """
    pairs, accuracies = read_pairs(preferences or bed.validation), dict[str, float]()
    for name, path in pool.runs.items():
        model = load_reward_model(str(path))
        accuracies[name] = pairwise_accuracy(score(model, encode_pairs(pairs, model.encoder, "refuse")))
    return Ranking(pool, sorted(pool.runs, key=lambda name: -accuracies[name]))
