"""Partners that do not average: every pair of runs at half weight, on pairs that none was trained on.

A run that lies beyond a barrier spoils every average that it is in, and its own accuracy does not show it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warmkit.evaluation.accuracy import Estimate, interval
from warmkit.evaluation.averaging import ByData, Contest
from warmkit.evaluation.ranking_pairs import FEW, sampled

MOST = 1000
"""Pairs that are scored: the interval of a gain is then about 2 points to either side."""


@dataclass(frozen=True)
class Bad:
    """A run that does not average with most of its partners.

    Attributes:
        worse: Partners with which the average is worse than the mean of the two, the whole interval below zero.
        partners: All of its partners.
        gain: The mean over those partners of WA less the mean of the two, a share.
    """

    worse: int
    partners: int
    gain: float


@dataclass(frozen=True)
class Partners:
    """How well every run of a pool averages with every other one.

    Attributes:
        pairs: On which it was measured.
        of: Pairs that there were.
        gains: By two names, accuracy of the model with the mean of both runs' weights less the mean of the two accuracies,
            paired over pairs, ties counted half, with the 95% interval.
    """

    pairs: int
    of: int
    gains: Mapping[str, Mapping[str, Estimate]]

    @property
    def enough(self) -> bool:
        """Whether there are pairs enough to tell anything."""
        return self.pairs >= FEW

    def bad(self, names: Sequence[str] | None = None) -> dict[str, Bad]:
        """Return the runs that are worse averaged than alone with more than half of the others; none where pairs are too few.

        Args:
            names: Which runs are looked at; by default all.
        """
        names = list(self.gains if names is None else names)
        found: dict[str, Bad] = {}
        for name in names if self.enough else ():
            worse = [self.gains[name][other] for other in names if other != name and self.gains[name][other].high < 0]
            if 2 * len(worse) > len(names) - 1:
                found[name] = Bad(len(worse), len(names) - 1, float(np.mean([each.value for each in worse])))
        return found

    def connected(self, ranked: Sequence[str]) -> list[str]:
        """Return the runs without bad ones: the worst leaves until none is bad among those left.

        Of two halves that average among themselves only, the half with the better runs stays; of two runs, the better.

        Args:
            ranked: Names, best first.
        """
        left = list(ranked)
        while bad := self.bad(left):
            left.remove(max(reversed([name for name in left if name in bad]), key=lambda name: bad[name].worse))
        return left

    def told(self, name: str, pairs: str) -> str:
        """Return a sentence about a run that is bad; `pairs` is what the pairs are called."""
        bad = self.bad()[name]
        culprit = "; which of the two is at fault two runs cannot tell" if bad.partners == 1 else ""
        return (
            f"{name} does not average: with {bad.worse} of its {bad.partners} partners the average is less accurate than the "
            f"mean of the two, by {-100 * bad.gain:.1f} points (95% intervals wholly below 0, {self.pairs} {pairs}){culprit}."
        )

    def document(self) -> dict[str, Any]:
        """Return what `summary.json` holds."""
        return {
            "pairs": self.pairs,
            "of": self.of,
            "enough": self.enough,
            "gains": {a: {b: dataclasses.asdict(each) for b, each in others.items()} for a, others in self.gains.items()},
            "bad": {name: dataclasses.asdict(each) for name, each in self.bad().items()},
        }


def partners(
    contest: Contest,
    names: Sequence[str],
    data: str,
    alone: Mapping[str, ByData] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Partners:
    """Average every two runs at half weight, and hold the average's accuracy against the mean of the two.

    M (M - 1) / 2 models are evaluated in memory, on at most `MOST` pairs.

    Args:
        contest: Of the runs.
        names: Of at least two.
        data: The data set to score, which no run was trained on.
        alone: Scores of every run, where they are known.
        tick: Called after every average.

    Source: WARM (Ramé et al., 2024), section 3.2, observation 1, at lambda 1/2.
    """
    places = sampled(contest.data[data].pairs, MOST)
    pairs = contest.data[data].only(places)
    small = Contest(contest.model, {data: pairs}, contest.members, contest.cache, contest.precision)
    won = {name: alone[name][data].won[places] if alone else small.individual(name)[data].won for name in names}
    gains: dict[str, dict[str, Estimate]] = {name: {} for name in names}
    for a, b in itertools.combinations(names, 2):
        gain = interval(small.average([a, b])[data].won - (won[a] + won[b]) / 2)
        tick()
        gains[a][b] = gains[b][a] = gain
    return Partners(len(pairs), len(contest.data[data]), gains)
