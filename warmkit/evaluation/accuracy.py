"""Accuracy of a reward model on comparisons, with an interval, and what a user looks at next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warmkit.common.display import Displayed
from warmkit.common.random_streams import generator
from warmkit.evaluation.few_values import Estimate, student_interval, wilson_interval

Array = NDArray[np.float64]
FEW = 50
"""Values below which a bootstrap covers less than it says by a point or more."""


@dataclass(frozen=True, repr=False)
class Scores(Displayed):
    """Rewards of one model on one data set.

    Attributes:
        chosen: r(x, y+), [n].
        rejected: r(x, y-), [n].
    """

    chosen: Array
    rejected: Array

    @property
    def margins(self) -> Array:
        """r(x, y+) - r(x, y-), [n]."""
        return self.chosen - self.rejected

    @property
    def correct(self) -> Array:
        """1 where the preferred answer scores at least as high, [n]."""
        return (self.margins >= 0).astype(np.float64)

    @property
    def won(self) -> Array:
        """1 where the preferred answer scores higher, and 1/2 where both score the same, [n]: what models are chosen by."""
        return (self.margins > 0) + 0.5 * (self.margins == 0)


def pairwise_accuracy(scores: Scores) -> float:
    """Return the share of comparisons in which r(x, y+) >= r(x, y-).

    Ties count as right, as in the paper, so a model that says the same of everything has accuracy 1: look at `tied` too.

    Source: WARM (Ramé et al., 2024), section 3.2.

    Examples:
        >>> pairwise_accuracy(Scores(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
        0.5
    """
    return float(scores.correct.mean())


def interval(values: Array, seed: int = 0, level: float = 0.95, draws: int = 2000, *, shares: bool = False) -> Estimate:
    """Return the mean of [n] values, of comparisons or prompts, and its interval.

    Percentiles of a bootstrap; of fewer than `FEW` values, which it would make too narrow, Student's t. One value alone has no
    interval: its ends are the value.

    Args:
        values: [n].
        seed: Of the bootstrap.
        level: Of the interval.
        draws: Of the bootstrap.
        shares: Whether the mean is a share, of comparisons that are right for instance. Of few values that are all 0 or 1 it
            gets Wilson's interval: ten of ten is no certainty. (A difference that is 0 everywhere is one.)
    """
    if shares and len(values) < FEW and np.isin(values, (0.0, 1.0)).all():
        return wilson_interval(int(values.sum()), len(values), level)
    if len(values) == 1:
        return Estimate(*[float(values[0])] * 3)
    if len(values) < FEW:
        return student_interval(values.tolist(), level)
    means = np.concatenate([values[places].mean(1) for places in _resamples(len(values), seed, draws)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values.mean()), float(low), float(high))


def _resamples(n: int, seed: int, draws: int) -> Iterator[NDArray[np.int64]]:
    """Yield the places of all resamples, [draws, n] in blocks that fit into caches."""
    draw, block = generator("bootstrap", seed), max(1, 2**18 // n)
    for done in range(0, draws, block):
        yield draw.integers(n, size=(min(block, draws - done), n))


def ensemble(members: Sequence[Scores]) -> Scores:
    """Return the scores of ENS: the mean of the members' rewards.

    Source: WARM (Ramé et al., 2024), section 2.2; Lakshminarayanan et al. (2017).
    """
    return Scores(np.mean([each.chosen for each in members], axis=0), np.mean([each.rejected for each in members], axis=0))


def agreement(a: Scores, b: Scores) -> float:
    """Return the share of comparisons in which two models prefer the same answer."""
    return float((np.sign(a.margins) == np.sign(b.margins)).mean())


def calibration_error(scores: Scores, bins: int = 10) -> float:
    """Return the expected calibration error of sigmoid(margin) as the probability that the preferred answer wins.

    The answer that the model prefers is right with the probability that it says, sigmoid(|margin|), in [0.5, 1]; the error is
    the mean distance between that and the share that is right, over `bins` equal bins.

    Source: Guo et al. (2017).
    """
    confidence = 1 / (1 + np.exp(-np.abs(scores.margins)))
    right = scores.margins >= 0
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    total = 0.0
    for each in range(bins):
        inside = place == each
        if inside.any():
            total += float(inside.mean()) * abs(float(confidence[inside].mean()) - float(right[inside].mean()))
    return total


def correlation(a: Array, b: Array) -> float:
    """Return Pearson's correlation; 0 where one of the two is constant."""
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def report(scores: Scores, lengths: tuple[Array, Array]) -> dict[str, float | int]:
    """Return everything about one model on one data set.

    Args:
        scores: Of the model.
        lengths: Tokens of the chosen and of the rejected answers.
    """
    accuracy = interval(scores.correct, shares=True)
    rewards = np.concatenate([scores.chosen, scores.rejected])
    return {
        "pairs": len(scores.chosen),
        "accuracy": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "won": float(scores.won.mean()),
        "tied": int((scores.margins == 0).sum()),
        "loss": float(np.logaddexp(0, -scores.margins).mean()),
        "calibration_error": calibration_error(scores),
        "length_correlation": correlation(rewards, np.concatenate(lengths)),
        "mean": float(rewards.mean()),
        "deviation": float(rewards.std()),
    }
