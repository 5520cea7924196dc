"""Win rates between two policies on the same prompts, and WARP's scale of seven steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warmkit.common.display import Displayed
from warmkit.errors import UsageError
from warmkit.evaluation.accuracy import Estimate, interval

Array = NDArray[np.float64]

STEPS = (0.5, 1.0, 1.5)
"""Slightly better, better, much better; a tie is 0, and the other side's are negative."""

THRESHOLDS = (0.6, 0.8, 0.95)
"""Probabilities of winning from which a reward's verdict is slightly better, better, much better; a choice of ours."""


@dataclass(frozen=True, repr=False)
class Match(Displayed):
    """Verdicts about the answers of policies A and B, K to each of N prompts; NaN where there is none.

    Attributes:
        outcomes: 1 where A wins, 0.5 where they tie, 0 where B wins, [N, K].
        steps: On the scale of seven steps, positive for A, [N, K].
        agreements: 1 where a judge who saw both orders meant the same, 0 where not, NaN where it was not asked, [N, K];
            None for a judge to whom order means nothing.
    """

    outcomes: Array
    steps: Array
    agreements: Array | None = None

    @property
    def wins(self) -> int:
        return int((self.outcomes == 1).sum())

    @property
    def ties(self) -> int:
        return int((self.outcomes == 0.5).sum())

    @property
    def losses(self) -> int:
        return int((self.outcomes == 0).sum())

    @property
    def win_rate(self) -> Estimate:
        """Share of answers of A that win, ties half, with the bootstrap interval over prompts."""
        return interval(_by_prompt(self.outcomes), shares=True)

    @property
    def score(self) -> Estimate:
        """Mean on the scale of seven steps, with the bootstrap interval over prompts; positive where A is better.

        Source: WARP (Ramé et al., 2024), table 1.
        """
        return interval(_by_prompt(self.steps))

    @property
    def consistency(self) -> float | None:
        """Share of pairs about which a judge said the same in both orders; None where order means nothing or none was asked."""
        if self.agreements is None or np.isnan(self.agreements).all():
            return None
        return float(np.nanmean(self.agreements))

    def reversed(self) -> Match:
        """Return the match of B against A."""
        return Match(1 - self.outcomes, 0 - self.steps, self.agreements)


def match_by_scores(a: Array, b: Array, tie_margin: float = 0.0, thresholds: Sequence[float] = THRESHOLDS) -> Match:
    """Compare answers by their rewards, sample k of A with sample k of B.

    Args:
        a: Rewards of A's answers, [N, K].
        b: Rewards of B's, [N, K].
        tie_margin: Rewards that differ by this much or less tie.
        thresholds: See `seven_steps`.

    Raises:
        UsageError: If the shapes differ, or the margin or a threshold is out of range.

    Examples:
        >>> match_by_scores(np.array([[1.0], [0.0]]), np.array([[0.0], [0.0]])).win_rate.value
        0.75
    """
    if a.shape != b.shape:
        raise UsageError(f"expected answers to the same prompts, as many each, found shapes {a.shape} and {b.shape}")
    if not tie_margin >= 0:
        raise UsageError(f"tie margin: expected 0 or more, found {tie_margin:g}")
    margins = np.where(np.abs(a - b) <= tie_margin, 0.0, a - b)
    return Match(0.5 + 0.5 * np.sign(margins), seven_steps(margins, thresholds))


def seven_steps(margins: Array, thresholds: Sequence[float] = THRESHOLDS) -> Array:
    """Put differences of rewards on WARP's scale: 0, and 0.5, 1 and 1.5 to either side.

    A difference d stands for the probability sigmoid(|d|) that the better answer is preferred (Bradley-Terry), so rewards in
    other units need a weight that brings them to logits. From each threshold on it is one step more: slightly better, better,
    much better. Below the first it is a tie.

    Args:
        margins: Differences of rewards, of any shape.
        thresholds: Three probabilities from 0.5 up to below 1, rising.

    Raises:
        UsageError: If they are anything else.

    Source: WARP (Ramé et al., 2024), table 1, for the scale; the thresholds are ours.

    Examples:
        >>> seven_steps(np.array([-3.0, -0.1, 0.5, 2.0]))
        array([-1.5,  0. ,  0.5,  1. ])
    """
    check_thresholds(thresholds)
    probability = 1 / (1 + np.exp(-np.abs(margins)))
    reached = sum((probability >= each).astype(np.float64) for each in thresholds)
    return np.sign(margins) * 0.5 * reached + 0.0  # no -0


def check_thresholds(thresholds: Sequence[float]) -> None:
    """Refuse anything but three rising probabilities.

    Raises:
        UsageError: If they are not.
    """
    if len(thresholds) != 3 or not 0.5 <= thresholds[0] < thresholds[1] < thresholds[2] < 1:
        found = ",".join(f"{each:g}" for each in thresholds)
        raise UsageError(f"steps: expected three rising probabilities from 0.5 to below 1, such as 0.6,0.8,0.95, found {found}")


def _by_prompt(values: Array) -> Array:
    """Return the mean of every prompt that has a value."""
    kept = values[~np.isnan(values).all(1)]
    if not len(kept):
        raise UsageError("expected at least one verdict, found none")
    return np.nanmean(kept, 1)
